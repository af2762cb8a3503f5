"""Write videos, receipts and contact sheets: under a temporary name, renamed when whole, never over another file."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from fastvideo_core.app.unfinished import alone_in, flush, give_name, remove_leftovers, unfinished
from fastvideo_core.discovery.home import expanded
from fastvideo_core.errors import InputError, OutputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fastvideo_core.app.result import Audio, VideoResult

_OTHER_FORMATS = {".avi", ".gif", ".m4v", ".mkv", ".mov", ".mpeg", ".mpg", ".webm", ".webp", ".wmv"}
_NAME_LENGTH = 60
_MOST_OF_A_NAME = 1_000_000


def prepare_folder(output_path: str | Path) -> tuple[Path, str | None]:
    """Make sure that files can be written, before any work is done.

    Returns:
        The folder, and the file's stem if `output_path` names a file.

    Raises:
        InputError: the path names a file that is not an MP4.
        OutputError: the folder cannot be made or written to.
    """
    path = expanded(output_path)
    if path.suffix.lower() in _OTHER_FORMATS:
        raise InputError(f"output_path {str(path)!r} ends in {path.suffix}; videos are written as .mp4")
    folder, stem = (path.parent, path.stem) if path.suffix.lower() == ".mp4" else (path, None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _try_longest_name(folder, stem)
        remove_leftovers(folder)
        with unfinished(folder, ".mp4"):
            pass
    except (OSError, ValueError) as error:
        raise OutputError(f"no file can be written to {str(folder)!r}: {error}; choose another output_path") from error
    return folder, stem


def _try_longest_name(folder: Path, stem: str | None) -> None:
    """Raise OSError if the name that a video may come to have is too long: of `save`, with a number and .json."""
    with suppress(FileNotFoundError):
        (folder / f"{stem or 'x' * _NAME_LENGTH}_{_MOST_OF_A_NAME - 1}.json").lstat()


def name_for(prompt: str) -> str:
    """A file name made of the prompt's letters and digits."""
    words = re.findall(r"\w+", prompt.lower())
    name = "-".join(words).encode("ascii", "ignore").decode()[:_NAME_LENGTH].strip("-_")
    return name or "video"


def save_result(
    result: VideoResult, folder: Path, stem: str | None, fps: int, sheet: bool, exact: bool = False
) -> None:
    """Write the video, its receipt and, if asked for, a contact sheet, all of them or none; and note where they are.

    Args:
        exact: whether the files get the stem or none; otherwise a number is added where it is taken.

    Raises:
        OutputError: the folder cannot be written to; it brings along the result, as making it again may take long.
    """
    start = time.perf_counter()
    try:
        with encoded(folder, result.frames, fps, result.audio) as video:
            result.receipt.seconds["encode"] = time.perf_counter() - start
            files: dict[str, bytes | Path] = {".json": result.receipt.to_json().encode("utf-8", "backslashreplace")}
            if sheet:
                files[".png"] = contact_sheet(result.frames)
            put = save_as if exact else save
            names = put(folder, stem or name_for(result.prompt), {**files, ".mp4": video})
    except OutputError as error:
        error.result = result
        raise
    result.video_path, result.receipt_path, result.sheet_path = names[".mp4"], names[".json"], names.get(".png")


def save(folder: Path, stem: str, files: dict[str, bytes | Path]) -> dict[str, Path]:
    """Give files their final names, all with one stem that is free: `stem`, `stem_1`, `stem_2`, …

    Args:
        files: per suffix, the content, or a finished temporary file in the same folder that is moved.

    Raises:
        OutputError: the folder cannot be written to any more.
    """
    with _explained(folder), _temporaries(folder, files) as ready:
        for file in ready.values():
            flush(file)
        for number in range(_MOST_OF_A_NAME):
            names = {suffix: folder / f"{stem}{f'_{number}' if number else ''}{suffix}" for suffix in files}
            if _claim(ready, names):
                flush(folder)
                return names
    raise OutputError(f"{folder} holds a million files named {stem}")


def save_as(folder: Path, stem: str, files: dict[str, bytes | Path]) -> dict[str, Path]:
    """As `save`, with that stem or not at all. Files of it without a video are leftovers, and replaced.

    Raises:
        OutputError: there is a video of that name; or the folder cannot be written to any more.
    """
    names = {suffix: folder / f"{stem}{suffix}" for suffix in files}
    with _explained(folder), _temporaries(folder, files) as ready:
        for file in ready.values():
            flush(file)
        with alone_in(folder):
            if not names[".mp4"].exists():
                for suffix in files.keys() - {".mp4"}:
                    names[suffix].unlink(missing_ok=True)
            if not _claim(ready, names):
                raise OutputError(f"{str(names['.mp4'])!r} is there already; it stays, and nothing was written")
            flush(folder)
    return names


def _claim(ready: dict[str, Path], names: dict[str, Path]) -> bool:
    """Link each file to its name; if one is taken, take back the others."""
    linked: list[Path] = []
    try:
        for suffix, name in names.items():
            give_name(ready[suffix], name)
            linked.append(name)
    except BaseException as error:
        for name in linked:
            name.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            return False
        raise
    return True


@contextmanager
def _temporaries(folder: Path, files: dict[str, bytes | Path]) -> Iterator[dict[str, Path]]:
    """Write contents to temporary files, beside those that are finished already."""
    with ExitStack() as stack:
        ready = {}
        for suffix, content in files.items():
            if isinstance(content, Path):
                ready[suffix] = content
                continue
            ready[suffix] = stack.enter_context(unfinished(folder, suffix))
            ready[suffix].write_bytes(content)
        yield ready


@contextmanager
def encoded(folder: Path, frames: NDArray[np.float32], fps: int, audio: Audio | None = None) -> Iterator[Path]:
    """An H.264 MP4 (yuv420p), with AAC if there is audio, under a temporary name, removed at the end.

    Args:
        frames: (num_frames, height, width, 3) in 0…1, height and width even.

    Raises:
        OutputError: it cannot be written.
    """
    import av

    with _explained(folder), unfinished(folder, ".mp4") as path:
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "16"})
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            track = audio and container.add_stream("aac", rate=audio.rate, layout=audio.layout)
            for frame in to_bytes(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
            if audio and track:
                samples = av.AudioFrame.from_ndarray(audio.samples.clip(-1, 1), format="fltp", layout=audio.layout)
                samples.sample_rate = audio.rate
                container.mux(track.encode(samples))
                container.mux(track.encode())
        yield path


def contact_sheet(frames: NDArray[np.float32], most: int = 12, columns: int = 4) -> bytes:
    """A PNG with up to `most` frames, evenly spaced from the first to the last, row by row."""
    import io

    import numpy as np
    from PIL import Image

    chosen = to_bytes(frames)[np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int))]
    count, height, width, _ = chosen.shape
    columns = min(columns, count)
    gap = 4
    size = (columns * (width + gap) - gap, math.ceil(count / columns) * (height + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    for index, frame in enumerate(chosen):
        sheet.paste(Image.fromarray(frame), (index % columns * (width + gap), index // columns * (height + gap)))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def to_bytes(frames: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0…1 to 0…255, rounded."""
    import numpy as np

    return np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"writing to {str(folder)!r} failed: {error}; nothing was kept. Free some space, or choose another "
            "output_path"
        ) from error
