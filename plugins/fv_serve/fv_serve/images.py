"""Images that videos start from, and stills of videos."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

from fv_serve.problems import bad_value


def as_png(content: bytes, most_pixels: int) -> bytes:
    """An image that a client sent, decoded and written anew, so that nothing else comes along.

    Raises:
        ApiError: it cannot be read, or is too large; told before it is decoded.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP"))
            if image.width * image.height > most_pixels:
                raise bad_value(
                    "input_reference",
                    f"the image has {image.width}x{image.height} pixels; up to {most_pixels:,} can be sent",
                )
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, TypeError, OverflowError, Image.DecompressionBombError) as error:
        message = f"input_reference cannot be read as a PNG, JPEG or WebP: {error}"
        raise bad_value("input_reference", message[:300]) from error
    buffer = io.BytesIO()
    upright.save(buffer, "PNG")
    return buffer.getvalue()


def thumbnail(video: Path, longest: int = 480) -> bytes:
    """The first frame of a video as WebP, at most so many pixels wide and high."""
    import av

    with av.open(str(video)) as container:
        image: Any = next(container.decode(video=0)).to_image()  # type: ignore[no-untyped-call]  # of av
    image.thumbnail((longest, longest))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP")
    return buffer.getvalue()
