"""What a bench has measured, kept as it goes: a line for each video, so that an interrupted one goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvideo_core.app.bench.setup import Combination, Sample, Setup
from fastvideo_core.app.files import JsonLines, written_whole
from fastvideo_core.errors import InputError, OutputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Measurement:
    """One video.

    Attributes:
        seconds: of denoising.
        steps_computed, steps_skipped: forward passes of all branches.
        psnr, ssim: against the plain video of the same prompt and seed; PSNR in dB, None where they are equal.
        right: per attribute of the prompt, whether the video shows it; None without a checker for the model.
        video: the file's name in the folder `videos`.
        unscored: why the model's checker said nothing of this video, if it failed.
    """

    attention: str
    cache: str
    number: int
    prompt: str
    seed: int
    seconds: float
    steps_computed: int
    steps_skipped: int
    peak_memory_bytes: int | None
    psnr: float | None
    ssim: float | None
    right: dict[str, bool] | None
    video: str
    schedule: dict[str, str] | None
    unscored: str | None = None

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.attention, self.cache, self.prompt, self.seed


class Store:
    """A folder with the measurements, the videos, and the plain videos' frames.

    Raises:
        InputError: the folder holds a bench of another model or with other settings.
        OutputError: it cannot be written to.
    """

    def __init__(self, folder: Path, setup: Setup) -> None:
        self.folder, self._lines = folder, JsonLines(folder / "measurements.jsonl")
        self.videos, self._frames = folder / "videos", folder / "plain_frames"
        try:
            for path in (self.videos, self._frames):
                path.mkdir(parents=True, exist_ok=True)
            self._check_setup(setup.describe())
            self.known = {one.key: one for one in (Measurement(**line) for line in self._lines.read())}
        except OSError as error:
            raise OutputError(f"{str(folder)!r} cannot be written to: {error}; choose another --output") from error
        self.shares: dict[str, float] = self._read_shares()

    def find(self, combination: Combination, sample: Sample) -> Measurement | None:
        """What was measured of it, if it was."""
        return self.known.get((combination.attention, combination.cache, sample.prompt, sample.seed))

    def add(self, measurement: Measurement) -> None:
        self.known[measurement.key] = measurement
        self._lines.append(asdict(measurement))

    def add_share(self, attention: str, share: float) -> None:
        """Keep the share of denoising that is attention."""
        self.shares[attention] = share
        with written_whole(self.folder / "attention_share.json", overwrite=True) as file:
            file.write_text(json.dumps(self.shares) + "\n", "utf-8")

    def plain_frames(self, sample: Sample) -> NDArray[np.uint8] | None:
        """The plain video's frames, (num_frames, height, width, 3), 0…255."""
        import numpy as np

        path = self._frames_path(sample)
        return np.load(path) if path.exists() else None

    def keep_plain_frames(self, sample: Sample, frames: NDArray[np.uint8]) -> None:
        import numpy as np

        with written_whole(self._frames_path(sample), overwrite=True) as file, file.open("wb") as opened:
            np.save(opened, frames)

    def _frames_path(self, sample: Sample) -> Path:
        return self._frames / f"{sample.number}_{sample.seed}.npy"

    def _check_setup(self, described: dict[str, Any]) -> None:
        path = self.folder / "setup.json"
        if not path.exists():
            with written_whole(path) as file:
                file.write_text(json.dumps(described, indent=1) + "\n", "utf-8")
            return
        before = path.read_text("utf-8")
        if json.loads(before) != json.loads(json.dumps(described)):
            raise InputError(
                f"{str(self.folder)!r} holds a bench with other settings ({' '.join(before.split())}); choose another "
                "--output"
            )

    def _read_shares(self) -> dict[str, float]:
        path = self.folder / "attention_share.json"
        return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}
