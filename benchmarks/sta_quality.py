"""What windows cost in quality on the embedded model: python benchmarks/sta_quality.py [--prompts 20].

Each prompt is generated with full attention and with each window, from the same noise: PSNR against full attention, and
whether the video still shows what the prompt says, by `fv_shapes.score`.
"""

from __future__ import annotations

import math
from random import Random
from statistics import median
from typing import Any

import click
import numpy as np
from attention import environment
from fv_shapes.captions import caption
from fv_shapes.scenes import random_scene
from fv_shapes.score import judge

from fastvideo_core import VideoGenerator


@click.command()
@click.option("--prompts", default=20, show_default=True)
@click.option("--windows", default="3,1,1 1,2,1 1,1,1", show_default=True)
@click.option("--tile", default="4,4,8", show_default=True)
@click.option("--dense", default="0.25", show_default=True, help="Share of first steps with full attention.")
@click.option("--side", default=128, show_default=True)
@click.option("--frames", default=45, show_default=True)
@click.option("--seed", default=30_000, show_default=True)
def main(prompts: int, windows: str, tile: str, dense: str, side: int, frames: int, seed: int) -> None:
    """Print a row for full attention and for each window."""
    rng = Random(seed)
    texts = [caption(random_scene(rng), rng) for _ in range(prompts)]
    sizes: dict[str, Any] = {"height": side, "width": side, "num_frames": frames, "save_video": False}
    whole = generate_all(texts, sizes, seed, {}, "TORCH_SDPA")
    print(f"{'full':8} right {share_right(texts, whole):.0%} of {prompts}")
    for window in windows.split():
        variables = {"FASTVIDEO_STA_WINDOW": window, "FASTVIDEO_STA_TILE": tile, "FASTVIDEO_STA_DENSE": dense}
        results = generate_all(texts, sizes, seed, variables, "SLIDING_TILE_ATTN")
        details = results[0].receipt.attention["SELF"].details
        noise = [psnr(a.frames, b.frames) for a, b in zip(results, whole, strict=True)]
        print(
            f"{window:8} right {share_right(texts, results):.0%}, PSNR median {median(noise):.1f} dB "
            f"({min(noise):.1f} to {max(noise):.1f}), density {details['density']:.3f}, work {details['work']:.3f}"
        )


def generate_all(
    texts: list[str], sizes: dict[str, Any], seed: int, variables: dict[str, str], backend: str
) -> list[Any]:
    with environment(variables), VideoGenerator.from_pretrained("shapes", attention_backend=backend) as generator:
        return [generator.generate_video(text, seed=seed + n, **sizes) for n, text in enumerate(texts)]


def share_right(texts: list[str], results: list[Any]) -> float:
    """How many videos show shape, colour, motion and background of their prompt."""
    right = sum(all(judge(result.frames, text).right.values()) for text, result in zip(texts, results, strict=True))
    return right / len(texts)


def psnr(frames: Any, reference: Any) -> float:
    error = float(np.mean((frames - reference) ** 2))
    return 10 * math.log10(1 / error) if error else math.inf


if __name__ == "__main__":
    main()
