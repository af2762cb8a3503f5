"""Measure the checker on rendered clips with blur, noise and H.264: python train/checker.py --output runs/checker.json.

Each clip gets a blur of up to 0.7 pixels (standard deviation) and noise of 2 to 8 in 255, and goes through
H.264 with the settings of fastvideo-core's videos.
"""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from random import Random

import av
import click
import numpy as np
from evaluate import Size, accuracies, as_sizes, failures, outlines, row_of
from fv_shapes.captions import caption
from fv_shapes.render import render
from fv_shapes.scenes import random_pair, random_scene
from fv_shapes.score import judge
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


@click.command()
@click.option("--clips", default=100, show_default=True, help="For each size, of one shape and of two.")
@click.option("--size", "sizes", callback=as_sizes, multiple=True, default=["33x128x128"], show_default=True)
@click.option("--seed", default=70_000, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Also write every result to this JSON file.")
def main(clips: int, sizes: tuple[Size, ...], seed: int, output: Path | None) -> None:
    """Print how often the checker is right, and what it measures on shapes that are as they should be."""
    everything = []
    for make in (random_scene, random_pair):
        rows = []
        for size in sizes:
            spent = []
            for number in range(clips):
                rng = Random(f"{seed} {number} {size}")
                scene = make(rng)
                frames, text = degraded(render(scene, *size), rng), caption(scene, rng)
                start = time.process_time()
                judged = judge(frames, text)
                spent.append(time.process_time() - start)
                rows.append(row_of(text, number, size, judged))
            click.echo(f"{make.__name__}, {size}: {np.median(spent):.2f} s a clip, at most {max(spent):.2f}", err=True)
        click.echo("\n".join([*accuracies(rows), "", *outlines(rows), "", *failures(rows), ""]))
        everything += rows
    if output:
        output.write_text(json.dumps(everything, indent=1))


def degraded(clip: Frames, rng: Random) -> Frames:
    """A clip, blurred, noisy, and compressed."""
    share = rng.uniform(0.0, 0.25)
    pixels = clip.astype(np.float32)
    for axis in (1, 2):
        pixels = (1 - 2 * share) * pixels + share * (np.roll(pixels, 1, axis) + np.roll(pixels, -1, axis))
    noise = np.random.default_rng(rng.randrange(2**32)).standard_normal(pixels.shape, np.float32)
    pixels += np.float32(rng.uniform(2.0, 8.0)) * noise
    return compressed(np.rint(pixels.clip(0, 255)).astype(np.uint8))


def compressed(frames: Frames) -> Frames:
    """Frames as they are after H.264, with the settings of fastvideo-core's videos."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "16"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as video:
        return np.stack([np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in video.decode(video=0)])


if __name__ == "__main__":
    main()
