"""What compile=True gains on the embedded model: python benchmarks/compile.py."""

from __future__ import annotations

import time
from statistics import median

import click

from fastvideo_core import VideoGenerator, VideoResult


@click.command()
@click.option(
    "--rounds", default=7, type=click.IntRange(1), show_default=True, help="Pairs of an eager and a compiled run."
)
@click.option("--height", default=128, show_default=True, help="Of the video, and its width.")
@click.option("--frames", default=33, show_default=True)
def main(rounds: int, height: int, frames: int) -> None:
    """Time the denoising of alternating runs, after one run each that is not counted."""

    def run(generator: VideoGenerator) -> VideoResult:
        return generator.generate_video(
            "a red circle moving left", height=height, width=height, num_frames=frames, seed=1, save_video=False
        )

    with (
        VideoGenerator.from_pretrained("shapes") as eager,
        VideoGenerator.from_pretrained("shapes", compile=True) as fast,
    ):
        run(eager)
        start = time.perf_counter()
        run(fast)
        first = time.perf_counter() - start
        pairs = []
        for number in range(rounds):
            order = (eager, fast) if number % 2 else (fast, eager)
            seconds = {generator: run(generator).receipt.seconds["denoise"] for generator in order}
            pairs.append((seconds[eager], seconds[fast]))
    ratios = [without / compiled for without, compiled in pairs]
    slow, quick = (median(seconds) for seconds in zip(*pairs, strict=True))
    print(
        f"denoising, {frames} frames of {height}x{height}: eager {slow:.3f} s, compiled {quick:.3f} s; "
        f"{median(ratios):.3f} times as fast (median of {rounds} pairs, {min(ratios):.3f} to {max(ratios):.3f}); "
        f"first compiled run {first:.1f} s"
    )


if __name__ == "__main__":
    main()
