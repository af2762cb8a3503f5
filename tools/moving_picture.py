"""Draw the README's moving picture: python tools/moving_picture.py [--output docs/images/moving.webp].

One prompt and one seed, made three times by `shapes` on this machine: every step with full attention, with TEACACHE,
and with sliding tiles. The videos play side by side. Below each stand the seconds of one CPU core that the whole video
took, the median of alternating rounds, and the PSNR against the first. They are the process's own seconds on one
thread, so that other work on the machine hardly changes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import click
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from fastvideo_core import VideoGenerator, written_whole

ROOT = Path(__file__).parents[1]
MAX_BYTES = 1_500_000
MARGIN, LINE = 8, 22
INK, PAPER, SOFT = "#1f2328", "#ffffff", "#59636e"


@dataclass(frozen=True)
class Way:
    """One of the videos: what stands above it, and what makes it."""

    title: str
    backend: str
    cache: str | None


WAYS = (
    Way("plain", "TORCH_SDPA", None),
    Way("TEACACHE@0.2", "TORCH_SDPA", "TEACACHE@0.2"),
    Way("sliding tiles", "SLIDING_TILE_ATTN@tile=2,8,8:window=3,2,2", None),
)


@dataclass(frozen=True)
class Made:
    """A video, and the seconds of one core that it took."""

    frames: Any
    seconds: float


@click.command()
@click.option("--prompt", default="a large red circle moving up and to the right on a white background")
@click.option("--seed", default=7, show_default=True)
@click.option("--frames", default=45, show_default=True)
@click.option("--side", default=256, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="How often each video is made.")
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "docs" / "images" / "moving.webp")
def main(prompt: str, seed: int, frames: int, side: int, rounds: int, output: Path) -> None:
    """Make the videos, draw them side by side, and print what was measured."""
    sizes = {"height": side, "width": side, "num_frames": frames, "seed": seed, "save_video": False}
    results = make(prompt, sizes, rounds)
    plain = results[0][0].frames
    lines = [(way.title, told(made, plain)) for way, made in zip(WAYS, results, strict=True)]
    pictures = [draw(index, results, lines) for index in range(len(plain))]
    with written_whole(output, overwrite=True) as path:
        pictures[0].save(
            path, "WEBP", save_all=True, append_images=pictures[1:], duration=1000 // 15, loop=0, quality=70, method=6
        )
        if (size := path.stat().st_size) > MAX_BYTES:
            raise click.ClickException(f"the picture has {size:,} bytes, more than {MAX_BYTES:,}; use a smaller --side")
    for title, text in lines:
        click.echo(f"{title}: {text}")


def make(prompt: str, sizes: dict[str, Any], rounds: int) -> list[list[Made]]:
    """All rounds of each way; every second round backwards, after a short run of each that compiles."""
    torch.set_num_threads(1)
    results: list[list[Made]] = [[] for _ in WAYS]
    with VideoGenerator.from_pretrained("shapes") as generator:
        for number in range(-1, rounds):
            for index in range(len(WAYS))[:: -1 if number % 2 else 1]:
                way = WAYS[index]
                generator.use_attention(way.backend)
                few: dict[str, Any] = {"num_inference_steps": 4} if number < 0 else {}
                before = process_time()
                frames = generator.generate_video(prompt, cache=way.cache, **sizes, **few).frames
                if number >= 0:
                    results[index].append(Made(frames, process_time() - before))
    return results


def told(made: list[Made], plain: Any) -> str:
    """Seconds, and how far the frames are from the plain ones."""
    seconds = f"{median(one.seconds for one in made):.0f} s"
    error = float(np.mean((made[0].frames - plain) ** 2))
    return f"{seconds}, PSNR {10 * math.log10(1 / error):.1f} dB" if error else seconds


def draw(index: int, results: list[list[Made]], lines: list[tuple[str, str]]) -> Image.Image:
    """Frame `index` of each video, with its title above and its figures below."""
    frames = [Image.fromarray((made[0].frames[index] * 255).round().astype(np.uint8)) for made in results]
    width, height = frames[0].size
    picture = Image.new("RGB", (len(frames) * (width + MARGIN) + MARGIN, height + 2 * LINE + 3 * MARGIN), PAPER)
    pen = ImageDraw.Draw(picture)
    for column, (frame, (title, text)) in enumerate(zip(frames, lines, strict=True)):
        left = MARGIN + column * (width + MARGIN)
        pen.text((left, MARGIN), title, INK, ImageFont.load_default(16))
        picture.paste(frame, (left, MARGIN + LINE))
        pen.rectangle((left - 1, MARGIN + LINE - 1, left + width, MARGIN + LINE + height), outline=SOFT)
        pen.text((left, 2 * MARGIN + LINE + height), text, SOFT, ImageFont.load_default(15))
    return picture


if __name__ == "__main__":
    main()
