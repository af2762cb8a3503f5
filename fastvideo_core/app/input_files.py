"""Images and videos that a model starts from, read from files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastvideo_core.discovery.home import expanded
from fastvideo_core.errors import InputError


def open_image(path: str | Path) -> Any:
    """An image in RGB, turned as its file says.

    Raises:
        InputError: it cannot be read.
    """
    from diffusers.utils import load_image

    try:
        return load_image(str(expanded(path)))
    except (OSError, ValueError) as error:
        raise InputError(f"image_path {str(path)!r} cannot be read as an image: {error}") from error


def open_video(path: str | Path, num_frames: int) -> list[Any]:
    """The first frames of a video as images, all of them where it has fewer.

    Raises:
        InputError: it cannot be read, or has no frames.
    """
    with _decoded(path) as frames:
        found = [frame.to_image() for frame, _ in zip(frames, range(num_frames), strict=False)]
    if not found:
        raise InputError(f"video_path {str(path)!r} has no frames")
    return found


def video_length(path: str | Path, enough: int) -> int:
    """How many frames a video has; counting ends where there are enough.

    Raises:
        InputError: it cannot be read.
    """
    with _decoded(path) as frames:
        return sum(1 for _ in zip(frames, range(enough), strict=False))


@contextmanager
def _decoded(path: str | Path) -> Iterator[Any]:
    import av

    try:
        with av.open(str(expanded(path))) as container:
            if not container.streams.video:
                raise InputError(f"video_path {str(path)!r} has no video in it")
            yield container.decode(container.streams.video[0])
    except (OSError, ValueError) as error:  # av's errors are of both
        raise InputError(f"video_path {str(path)!r} cannot be read as a video: {error}") from error
