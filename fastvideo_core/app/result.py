"""What a generation gives back: the frames, where they were written, and the receipt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastvideo_core.errors import BackendOutputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fastvideo_core.contract.receipt import Receipt


@dataclass(repr=False)
class Audio:
    """What a model that makes audio has made: samples of -1…1, (channels, samples), so many of them a second."""

    samples: NDArray[np.float32]
    rate: int

    @property
    def layout(self) -> str:
        return "mono" if len(self.samples) == 1 else "stereo"


@dataclass(repr=False)
class VideoResult:
    """One generated video.

    Attributes:
        frames: (num_frames, height, width, 3), float32 in 0…1.
        video_path: the MP4; None if it was not to be saved.
        receipt_path: the receipt's JSON beside it; None likewise.
        sheet_path: the contact sheet; None if none was asked for.
        audio: of models that make it, such as LTX-2; it is in the MP4. None elsewhere.
    """

    prompt: str
    frames: NDArray[np.float32]
    receipt: Receipt
    video_path: Path | None = None
    receipt_path: Path | None = None
    sheet_path: Path | None = None
    audio: Audio | None = None

    def __repr__(self) -> str:
        return f"VideoResult(prompt={self.prompt!r}, frames={self.frames.shape}, video_path={str(self.video_path)!r})"


def check_finite(result: VideoResult) -> None:
    """Refuse a video with frames or audio that are not finite: encoded, they would be black, or noise.

    Raises:
        BackendOutputError: with the result.
    """
    import numpy as np

    bad = [number for number, frame in enumerate(result.frames) if not np.isfinite(frame).all()]
    heard = result.audio is None or bool(np.isfinite(result.audio.samples).all())
    if heard and not bad:
        return
    what = "the audio holds NaN or infinity"
    if bad:
        what = f"{len(bad)} of {len(result.frames)} frames hold NaN or infinity, the first is number {bad[0]}"
    receipt = result.receipt
    served = [one for role in receipt.attention.values() for one in (role, role.fallback) if one]
    policy = f", cached by {receipt.cache.policy}" if receipt.cache else ""
    error = BackendOutputError(
        f"{what}; attention was computed by "
        f"{' and '.join(dict.fromkeys(one.backend for one in served))} in {receipt.dtype}{policy}; no file was "
        "written. Try another attention backend or dtype; if it stays so, the model's weights are damaged"
    )
    error.result = result
    raise error
