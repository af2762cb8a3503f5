"""What a bench has measured, kept as it goes: a line for each video, so that an interrupted one goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvideo_core.app.bench.setup import Combination, Loaded, Sample, Setup
from fastvideo_core.app.files import JsonLines, written_whole
from fastvideo_core.discovery.printable import explain
from fastvideo_core.errors import InputError, OutputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_SHARES, _COMMUNICATION = "attention_share.json", "communication.json"
"""Files with a number for each backend in each number of processes."""


@dataclass(frozen=True)
class Measurement:
    """One video.

    Attributes:
        seconds: of denoising.
        steps_computed, steps_skipped: forward passes of all branches.
        psnr, ssim: against the plain video of the same prompt and seed; PSNR in dB, None where they are equal.
        right: per attribute of the prompt, whether the video shows it; None without a checker for the model.
        video: the file's name in the folder `videos`.
        unscored: why the model's checker said nothing of this video: it cannot judge the prompt, or it failed.
        peak_memory_bytes, bytes_sent: of that one of the `processes` where it was most; None where nobody counted.
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
    processes: int = 1
    bytes_sent: int | None = None

    @property
    def key(self) -> tuple[Combination, str, int]:
        return Combination(self.attention, self.cache, self.processes), self.prompt, self.seed


@dataclass(frozen=True)
class Profile:
    """Where a run of a few steps spent its time, without caching.

    Attributes:
        attention_share: the share of denoising that is attention.
        communication_seconds: seconds a step between processes, of the one that spent most; None where there is one.
    """

    attention_share: float
    communication_seconds: float | None = None


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
            self._check_setup(setup)
            measured = [Measurement(**line) for line in self._lines.read()]
            self.known = {one.key: one for one in measured if self._has_video(one)}
            self._shares, self._communication = self._read_numbers(_SHARES), self._read_numbers(_COMMUNICATION)
        except OSError as error:
            raise OutputError(f"{str(folder)!r} cannot be written to: {error}; choose another --output") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(_damaged(folder, explain(error))) from error

    def _has_video(self, one: Measurement) -> bool:
        """Whether its video is still there; where it is lost, it is measured again."""
        video = self.videos / one.video
        return video.is_file() and video.stat().st_size > 0

    def find(self, combination: Combination, sample: Sample) -> Measurement | None:
        """What was measured of it, if it was."""
        return self.known.get((combination, sample.prompt, sample.seed))

    def add(self, measurement: Measurement) -> None:
        self.known[measurement.key] = measurement
        self._lines.append(asdict(measurement))

    def profile(self, loaded: Loaded) -> Profile | None:
        """Where its time goes, if that has been measured."""
        share, seconds = self._shares.get(loaded.key), self._communication.get(loaded.key)
        if share is None or (seconds is None and loaded.processes > 1):
            return None
        return Profile(share, seconds)

    def add_profile(self, loaded: Loaded, profile: Profile) -> None:
        """Keep where its time goes."""
        self._shares[loaded.key] = profile.attention_share
        self._write_numbers(_SHARES, self._shares)
        if profile.communication_seconds is not None:
            self._communication[loaded.key] = profile.communication_seconds
            self._write_numbers(_COMMUNICATION, self._communication)

    def plain_frames(self, sample: Sample) -> NDArray[np.uint8] | None:
        """The plain video's frames, (num_frames, height, width, 3), 0…255."""
        import numpy as np

        path = self._frames_path(sample)
        try:
            return np.load(path, allow_pickle=False) if path.exists() else None
        except (OSError, ValueError, EOFError) as error:
            raise InputError(_damaged(self.folder, f"{path.name}: {explain(error)}")) from error

    def keep_plain_frames(self, sample: Sample, frames: NDArray[np.uint8]) -> None:
        import numpy as np

        with written_whole(self._frames_path(sample), overwrite=True) as file, file.open("wb") as opened:
            np.save(opened, frames)

    def _frames_path(self, sample: Sample) -> Path:
        return self._frames / f"{sample.number}_{sample.seed}.npy"

    def _check_setup(self, setup: Setup) -> None:
        """Refuse to mix measurements: what is noted must be the same, of backends and policies those of both."""
        path = self.folder / "setup.json"
        now = json.loads(json.dumps({**setup.describe(), "details": setup.details}, default=str))
        details = now["details"]
        if path.exists():
            before = self._read_json(path)
            known = before.get("details", {})
            differing = [name for name in now if name != "details" and before.get(name) != now[name]]
            differing += [name for name in details if known.get(name, details[name]) != details[name]]
            if differing:
                old, new = {**known, **before}, {**details, **now}
                both = [f"{name} was {_shown(old.get(name))}, now {_shown(new[name])}" for name in differing]
                raise InputError(
                    f"{str(self.folder)!r} holds a bench with other settings: {'; '.join(both)}; "
                    "choose another --output"
                )
            now["details"] = {**known, **details}
        with written_whole(path, overwrite=True) as file:
            file.write_text(json.dumps(now, indent=1) + "\n", "utf-8")

    def _read_numbers(self, name: str) -> dict[str, float]:
        path = self.folder / name
        return {key: float(number) for key, number in self._read_json(path).items()} if path.exists() else {}

    def _write_numbers(self, name: str, numbers: dict[str, float]) -> None:
        with written_whole(self.folder / name, overwrite=True) as file:
            file.write_text(json.dumps(numbers) + "\n", "utf-8")

    def _read_json(self, path: Path) -> dict[str, Any]:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise TypeError(f"{path.name} holds no object")
        return content


def _shown(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _damaged(folder: Path, problem: str) -> str:
    return f"{str(folder)!r} holds a bench that is damaged ({problem}); remove the folder, or choose another --output"
