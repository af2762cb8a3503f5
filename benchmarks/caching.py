"""What skipped steps save: python benchmarks/caching.py [--quick] [--compiled] [--backend NAME] [--sta] [--rounds 1].

A full-size Wan 2.1 1.3B with random weights denoises 81 frames of 480x832 in 50 steps with guidance: the bare diffusers
pipeline, the same through the core, and with plans that skip a third and a half of the steps. A random time embedding
would give TeaCache another schedule than a trained one, so the plans are fixed: a third and a half are the shares that
published timings imply for thresholds of 0.05 and 0.08. Runs of one round alternate; seconds are of the denoising loop.
--sta adds Sliding Tile Attention with the tile that pads least, its first quarter of the steps dense, and half skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

import click
import torch
from attention import LATENT, QUICK_LATENT, build_pipeline, describe
from results import Results, table
from timing import in_the_middle, turn
from ways import BARE

from fastvideo_core import Action, Branch, CachePolicy, Step, attach

STA = "SLIDING_TILE_ATTN"


@dataclass
class FixedShare(CachePolicy):
    """Skips a share of the steps, evenly spread; the first and the last are computed."""

    name = "FIXED_SHARE"
    share: float = 0.5

    def plan(self, branch: Branch) -> list[Action]:
        return [self._action(index, branch.num_steps) for index in range(branch.num_steps)]

    def decide(self, step: Step, state: Any) -> Action:
        return self._action(step.index, step.num_steps)

    def _action(self, index: int, num_steps: int) -> Action:
        between = 0 < index < num_steps - 1
        skips = between and int(index * self.share) > int((index - 1) * self.share)
        return Action.REUSE if skips else Action.COMPUTE


@dataclass
class Timed:
    """Seconds of a run's denoising loop, and of each of its steps by what was done in it."""

    seconds: float
    computed: list[float]
    skipped: list[float]


@click.command()
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--quick", is_flag=True, help="A small model, to try the script.")
@click.option("--compiled/--eager", default=False)
@click.option("--backend", default="TORCH_SDPA", show_default=True, help="For all but the bare pipeline.")
@click.option("--sta", is_flag=True, help="Also SLIDING_TILE_ATTN, with its dense quarter.")
@click.option("--steps", default=50, show_default=True)
@click.option("--rounds", default=1, type=click.IntRange(1), show_default=True)
def main(device: str, quick: bool, compiled: bool, backend: str, sta: bool, steps: int, rounds: int) -> None:
    """Print a row for each, and write them."""
    pipe = build_pipeline(quick, device)
    pipe.set_progress_bar_config(disable=True)
    if compiled:
        pipe.transformer.compile_repeated_blocks(fullgraph=True)
    run = runner(pipe, quick, device)
    tiles: dict[str, Any] = {"tile": (2, 8, 8), "window": (1, 1, 1)} if quick else {"tile": "auto"}

    def measure(name: str | None, cache: Any, config: Any = None, num_steps: int = steps) -> Timed:
        return timed(pipe, run, num_steps, name, cache, device, config)

    rows: dict[str, Callable[[], Timed]] = {
        BARE: partial(measure, None, None),
        f"{backend}, all steps": partial(measure, backend, "none"),
        f"{backend}, a third skipped": partial(measure, backend, FixedShare(1 / 3)),
        f"{backend}, half skipped": partial(measure, backend, FixedShare(0.5)),
    }
    if sta:
        rows["STA, a quarter dense"] = partial(measure, STA, "none", tiles)
        rows["STA, a quarter dense, half skipped"] = partial(measure, STA, FixedShare(0.5), tiles)
        measure(STA, "none", tiles, 8)
    for warm_up in (None, backend):
        measure(warm_up, "none", num_steps=2)
    rows = in_the_middle(rows, BARE)
    taken: dict[str, list[Timed]] = {title: [] for title in rows}
    for number in range(rounds):
        for title in turn(rows, number + 1):
            taken[title].append(rows[title]())
            print(f"round {number + 1}: {title} {taken[title][-1].seconds:.2f} s", flush=True)
    print(f"\n{describe(device)}")
    mode = "compiled" if compiled else "eager"
    seconds = {title: [one.seconds for one in results] for title, results in taken.items()}
    title = f"{steps} steps of {'a small Wan' if quick else 'Wan 2.1 1.3B'} with guidance, {mode}"
    results = Results("caching", device)
    results.add(table(mode, title, seconds, BARE, {title: notes_of(own) for title, own in taken.items()}))
    if not quick:
        results.write()


def notes_of(runs: list[Timed]) -> dict[str, Any]:
    """Milliseconds of a step by what was done in it, and how many were skipped in a run."""
    computed = [step for one in runs for step in one.computed]
    skipped = [step for one in runs for step in one.skipped]
    notes: dict[str, Any] = {"ms a computed step": 1e3 * median(computed)}
    return (
        {**notes, "skipped": len(skipped) // len(runs), "ms a skipped step": 1e3 * median(skipped)}
        if skipped
        else notes
    )


def runner(pipe: Any, quick: bool, device: str) -> Callable[..., Any]:
    frames, height, width = QUICK_LATENT if quick else LATENT
    text = torch.randn(1, 512, pipe.transformer.config.text_dim, device=device, dtype=torch.bfloat16)

    def run(num_steps: int, **options: Any) -> Any:
        with torch.inference_mode():
            return pipe(
                prompt_embeds=text,
                negative_prompt_embeds=-text,
                height=height * 8,
                width=width * 8,
                num_frames=(frames - 1) * 4 + 1,
                num_inference_steps=num_steps,
                generator=torch.Generator("cpu").manual_seed(0),
                output_type="latent",
                **options,
            )

    return run


def timed(
    pipe: Any, run: Callable[..., Any], num_steps: int, backend: str | None, cache: Any, device: str, config: Any = None
) -> Timed:
    """One run, and what was done in each of its steps."""
    attached = (
        attach(pipe, attention_backend=backend, attention_config=config, cache=cache) if backend else nullcontext()
    )
    with attached as fv:
        lengths = step_seconds(run, num_steps, device)
    letters = next(iter(fv.receipt.cache.schedule.values())) if fv and fv.receipt.cache else "C" * num_steps
    by_kind: dict[str, list[float]] = {"C": [], "R": []}
    for letter, length in zip(letters, lengths, strict=True):
        by_kind[letter].append(length)
    return Timed(sum(lengths), by_kind["C"], by_kind["R"])


def step_seconds(run: Callable[..., Any], num_steps: int, device: str) -> list[float]:
    """Of each step of one run; the device is waited for after each."""
    marks: list[float] = []

    def mark(*step: Any) -> dict[str, Any]:
        if device == "cuda":
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
        return {}

    mark()
    run(num_steps, callback_on_step_end=mark)
    return [end - begin for begin, end in pairwise(marks)]


if __name__ == "__main__":
    main()
