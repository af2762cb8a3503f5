"""A video to start from."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def write_clip(path: Path) -> Path:
    """Write 9 frames of 48x32, each of another grey."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(9):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 20 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
