"""What a skipped step costs, here and with other caches: python benchmarks/caches.py [--quick] [--rounds 3].

A full-size Wan 2.1 1.3B with random weights denoises 81 frames of 480x832 with guidance, eager and with torch's
attention everywhere, and every second step is skipped: by a plan of ours; by `DBCACHE` with one block always computed;
by diffusers' MagCache and FirstBlockCache; by cache-dit with one block always computed. With random weights nothing
tells which steps may be skipped, so each is told to skip whatever it can, but not twice in a row. FirstBlockCache has
no such limit, and skips all steps but the first. What another cache skipped is told by its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from statistics import median
from typing import Any

import click
import torch
from attention import build_pipeline, describe
from caching import FixedShare, runner, step_seconds
from results import Results, table
from timing import in_the_middle, turn
from ways import BARE

from fastvideo_core import attach

Around = Callable[[Any], AbstractContextManager[Any]]
ALWAYS = 1e9
"""A threshold that everything is below."""


@click.command()
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--quick", is_flag=True, help="A small model, to try the script.")
@click.option("--steps", default=12, show_default=True)
@click.option("--rounds", default=3, type=click.IntRange(1), show_default=True)
def main(device: str, quick: bool, steps: int, rounds: int) -> None:
    """Print a row for each, and write them."""
    pipe = build_pipeline(quick, device)
    pipe.set_progress_bar_config(disable=True)
    run = runner(pipe, quick, device)
    ways = in_the_middle(ways_for(steps), BARE)
    seconds: dict[str, list[float]] = {}
    lengths: dict[str, list[float]] = {}
    missing: dict[str, str] = {}
    for number in range(rounds + 1):
        for title in turn(ways, number):
            if title in missing:
                continue
            try:
                with ways[title](pipe):
                    taken = step_seconds(run, steps, device)
            except ImportError as error:
                missing[title] = str(error)
                continue
            if number:  # the first round warms up
                seconds.setdefault(title, []).append(sum(taken))
                lengths.setdefault(title, []).extend(taken)
    print(f"\n{describe(device)}")
    for title, why in missing.items():
        print(f"{title} is not measured: {why}")
    whole = median(lengths[BARE])
    notes = {title: notes_of(lengths[title], whole, rounds) for title in ways if title in seconds}
    results = Results("caches", device)
    title = (
        f"{steps} steps of {'a small Wan' if quick else 'Wan 2.1 1.3B'} with guidance, eager, every second one skipped"
    )
    results.add(table("skipped", title, {one: seconds[one] for one in notes}, BARE, notes))
    if not quick:
        results.write()


def ways_for(steps: int) -> dict[str, Around]:
    """What is around a run, by its title."""
    return {
        "a plan": attached(FixedShare(0.5)),
        "DBCACHE, one block": attached("DBCACHE@1:first_blocks=1:last_blocks=0:max_skips=1"),
        BARE: lambda pipe: nullcontext(),
        "diffusers' MagCache": diffusers_magcache(steps),
        "diffusers' FirstBlockCache": diffusers_first_block,
        "cache-dit, one block": cache_dit(steps),
    }


def attached(cache: Any) -> Around:
    """With a policy of ours."""
    return lambda pipe: attach(pipe, attention_backend="TORCH_SDPA", cache=cache)


def diffusers_magcache(steps: int) -> Around:
    """diffusers' own, told that the residual never changes."""

    @contextmanager
    def around(pipe: Any) -> Iterator[None]:
        from diffusers import MagCacheConfig

        config = MagCacheConfig(
            threshold=ALWAYS,
            max_skip_steps=1,
            retention_ratio=1 / steps,
            num_inference_steps=steps,
            mag_ratios=[1.0] * steps,
        )
        with enabled(pipe.transformer, config):
            yield

    return around


@contextmanager
def diffusers_first_block(pipe: Any) -> Iterator[None]:
    """diffusers' own; it has no limit on the steps that it skips in a row."""
    from diffusers import FirstBlockCacheConfig

    with enabled(pipe.transformer, FirstBlockCacheConfig(threshold=ALWAYS)):
        yield


@contextmanager
def enabled(transformer: Any, config: Any) -> Iterator[None]:
    """As diffusers' users switch its caches on and off."""
    transformer.enable_cache(config)
    try:
        yield
    finally:
        transformer.disable_cache()


def cache_dit(steps: int) -> Around:
    """cache-dit's DBCache, F1B0."""

    @contextmanager
    def around(pipe: Any) -> Iterator[None]:
        package = import_module("cache_dit")
        config = package.DBCacheConfig(
            Fn_compute_blocks=1,
            Bn_compute_blocks=0,
            residual_diff_threshold=ALWAYS,
            max_warmup_steps=1,
            max_continuous_cached_steps=1,
            num_inference_steps=steps,
            enable_separate_cfg=True,
        )
        package.enable_cache(pipe, cache_config=config)
        try:
            yield
        finally:
            package.disable_cache(pipe)

    return around


def notes_of(lengths: list[float], whole: float, rounds: int) -> dict[str, Any]:
    """Milliseconds of a step that was computed, and of one that was not: it took less than half of a bare one."""
    skipped = [one for one in lengths if one < whole / 2]
    computed = [one for one in lengths if one >= whole / 2]
    notes: dict[str, Any] = {"ms a computed step": 1e3 * median(computed), "skipped": len(skipped) // rounds}
    return {**notes, "ms a skipped step": 1e3 * median(skipped)} if skipped else notes


if __name__ == "__main__":
    main()
