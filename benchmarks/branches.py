"""What it is worth that guidance branches decide together: python benchmarks/branches.py [--prompts 20].

Each prompt of a file is denoised by `shapes` as it is and with each policy, from the same noise: passes that were
skipped, of both branches, and the distance from the plain latents, |latents - plain| / |plain|, scaled as they are
decoded, so that channels that carry nothing do not count. EasyCache also in its published form, around the whole
transformer. The last table holds the policies against each other at equal skips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import fv_shapes
import numpy as np
import torch
from diffusers import WanPipeline
from fv_easycache import EasyCache
from fv_firstblock import FirstBlockCache

from fastvideo_core import CachePolicy, attach

WARM_UP = 5


@dataclass
class Whole:
    """EasyCache around a transformer: of two passes in turn, told apart by their order.

    Attributes:
        before: what entered in the step before.
        entered, left, added: in the last computed step, what entered and left, and the difference.
    """

    threshold: float
    num_steps: int
    step: int = 0
    error: float = 0.0
    ratio: float | None = None
    before: Any = None
    entered: Any = None
    left: Any = None
    added: Any = None
    skipped: int = 0

    def skips(self, latents: Any) -> bool:
        before, self.before, step, self.step = self.before, latents, self.step, self.step + 1
        if not WARM_UP <= step < self.num_steps - 1:
            self.error = 0.0
            return False
        if self.ratio is None:
            return False
        self.error += self.ratio * distance(latents, before) / float(self.left.abs().mean())
        if self.error < self.threshold:
            return True
        self.error = 0.0
        return False

    def computed(self, latents: Any, output: Any) -> None:
        if self.left is not None:
            self.ratio = distance(output, self.left) / distance(latents, self.entered)
        self.entered, self.left, self.added = latents, output, output - latents


def distance(one: Any, other: Any) -> float:
    return float((one - other).abs().mean())


@contextmanager
def published(pipe: Any, threshold: float, num_steps: int, together: bool) -> Iterator[Callable[[], int]]:
    """EasyCache on the pipeline; yields what tells the skipped passes."""
    branches = [Whole(threshold, num_steps) for _ in range(2)]
    forward, calls = pipe.transformer.forward, [0]
    skips = [False]

    def around(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        number = calls[0] % 2
        calls[0] += 1
        if number == 0 or not together:
            skips[0] = branches[number].skips(hidden_states)
        if skips[0]:
            branches[number].skipped += 1
            return (hidden_states + branches[number].added,)
        made = forward(hidden_states, *args, **kwargs)
        branches[number].computed(hidden_states, made[0])
        return made

    pipe.transformer.forward = around
    try:
        yield lambda: sum(branch.skipped for branch in branches)
    finally:
        del pipe.transformer.forward


@click.command()
@click.option("--prompts", default=20, show_default=True)
@click.option("--file", default="benchmarks/shapes_prompts.txt", type=click.Path(path_type=Path), show_default=True)
@click.option("--steps", default=20, show_default=True)
@click.option("--side", default=128, show_default=True)
@click.option("--frames", default=17, show_default=True)
@click.option("--firstblock", default="0.08 0.12 0.2 0.3", show_default=True, help="Thresholds.")
@click.option("--easycache", default="0.08 0.12 0.2 0.3", show_default=True, help="Thresholds.")
def main(prompts: int, file: Path, steps: int, side: int, frames: int, firstblock: str, easycache: str) -> None:
    """Print a row for each policy, mode and threshold."""
    texts = file.read_text("utf-8").splitlines()[:prompts]
    pipe = WanPipeline.from_pretrained(Path(fv_shapes.__file__).parent / "model")
    pipe.set_progress_bar_config(disable=True)
    deviations = torch.tensor(pipe.vae.config.latents_std).view(1, -1, 1, 1, 1)

    def make(number: int, cache: CachePolicy | None = None) -> tuple[Any, int]:
        with attach(pipe, attention_backend="TORCH_SDPA", cache=cache) as fv:
            made = denoise(number)
        return made, sum(fv.receipt.steps_skipped.values())

    def denoise(number: int) -> Any:
        made = pipe(
            texts[number],
            height=side,
            width=side,
            num_frames=frames,
            num_inference_steps=steps,
            guidance_scale=3.0,
            max_sequence_length=64,
            generator=torch.Generator().manual_seed(1000 + number),
            output_type="latent",
        ).frames
        return made * deviations

    def whole(number: int, threshold: float, together: bool) -> tuple[Any, int]:
        with published(pipe, threshold, steps, together) as skipped:
            return denoise(number), skipped()

    plain = [make(number)[0] for number in range(len(texts))]
    curves: dict[str, list[tuple[float, float]]] = {}
    for together in (False, True):
        mode = "together" if together else "each for itself"
        rows: dict[str, tuple[str, Callable[[int, float, bool], tuple[Any, int]]]] = {
            f"FIRSTBLOCK, {mode}": (firstblock, lambda number, *how: make(number, FirstBlockCache(*how))),
            f"EASYCACHE, {mode}": (
                easycache,
                lambda number, limit, both: make(number, EasyCache(limit, WARM_UP, both)),
            ),
            f"EasyCache as published, {mode}": (easycache, whole),
        }
        for title, (thresholds, run) in rows.items():
            for threshold in map(float, thresholds.split()):
                made = [run(number, threshold, together) for number in range(len(texts))]
                errors = [float((a - b).norm() / b.norm()) for (a, _), b in zip(made, plain, strict=True)]
                skipped = float(np.mean([skips for _, skips in made]))
                curves.setdefault(title, []).append((skipped, median(errors)))
                print(
                    f"| {title} | {threshold} | {skipped:.1f} of {2 * steps} | {median(errors):.3f} "
                    f"({min(errors):.3f} to {max(errors):.3f}) |",
                    flush=True,
                )
    for skips in range(8, 2 * steps, 4):
        row = [f"{title} {at(curve, skips):.3f}" for title, curve in curves.items() if at(curve, skips) is not None]
        print(f"{skips} skipped: {', '.join(row)}")


def at(curve: list[tuple[float, float]], skips: float) -> float | None:
    """The error at that many skips, between those that were measured."""
    skipped, errors = zip(*sorted(curve), strict=True)
    return float(np.interp(skips, skipped, errors)) if skipped[0] <= skips <= skipped[-1] else None


if __name__ == "__main__":
    main()
