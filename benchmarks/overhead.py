"""What the core costs: a whole generation beside the bare pipeline's, one routed attention call, and start-up.

Run with nothing else on the machine: python benchmarks/overhead.py [--rounds 5]
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Any

import click
import torch

from fastvideo_core import (
    AttentionBackend,
    AttentionCall,
    AttentionFunction,
    Capabilities,
    Probe,
    Role,
    TokenLayout,
    VideoGenerator,
)
from fastvideo_core.testing import AttentionPass

PROMPT = "a red circle moving left on a white background"


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Pairs of generations.")
@click.option("--steps", default=20, show_default=True)
def main(rounds: int, steps: int) -> None:
    """Print the table."""
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {torch.get_num_threads()} threads, Python {platform.python_version()}", end="; ")
    print(f"torch {torch.__version__}, diffusers {version('diffusers')}")
    whole_run(rounds, steps)
    routed_call()
    for title, arguments in (
        ("python -c 'import fastvideo_core'", ["-c", "import fastvideo_core"]),
        ("fv plugins", ["-m", "fastvideo_core", "plugins"]),
        ("fv --help", ["-m", "fastvideo_core", "--help"]),
    ):
        start_up(title, arguments)


def whole_run(rounds: int, steps: int) -> None:
    """Bare WanPipeline and VideoGenerator on the same weights, alternating, each first every other time."""
    import diffusers

    with VideoGenerator.from_pretrained("shapes", device="cpu", attention_backend="TORCH_SDPA") as generator:
        pipe = diffusers.WanPipeline.from_pretrained(generator.info.location, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        size: dict[str, Any] = {
            "height": 128,
            "width": 128,
            "num_frames": 33,
            "num_inference_steps": steps,
            "guidance_scale": 3.0,
            "max_sequence_length": 64,
        }

        def bare() -> None:
            pipe(PROMPT, **size, negative_prompt="", generator=torch.Generator().manual_seed(0), output_type="np")

        def core() -> None:
            generator.generate_video(PROMPT, **size, seed=0, save_video=False)

        bare()
        core()
        pairs = []
        for number in range(rounds):
            order = (bare, core) if number % 2 else (core, bare)
            seconds = {function: timed(function) for function in order}
            pairs.append((seconds[bare], seconds[core]))
    ratios = [with_core / without for without, with_core in pairs]
    bare_seconds, core_seconds = (median(seconds) for seconds in zip(*pairs, strict=True))
    print(f"whole run of {steps} steps: bare {bare_seconds:.3f} s, core {core_seconds:.3f} s", end="; ")
    spread = f"{min(ratios):.4f} to {max(ratios):.4f}"
    print(f"ratio {median(ratios):.4f} (median of {rounds} pairs, {spread}); goal 1.02")


class Nothing(AttentionBackend):
    """A backend whose kernel does nothing, so that only what is around it counts."""

    name = "NOTHING"
    capabilities = Capabilities(roles=frozenset(Role), lossless=True)

    def probe(self) -> Probe:
        return Probe(True, kernel="nothing", version="1")

    def load(self) -> AttentionFunction:
        return nothing


def nothing(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
    return query


def routed_call(calls: int = 20_000, repeats: int = 9) -> None:
    """A call of attention through the core beside a direct one, of a function that does nothing."""
    state, q = AttentionCall(Role.SELF), torch.zeros(1, 1, 1, 8)

    def loop(function: Callable[[], object]) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - start) / calls * 1e6

    with torch.inference_mode(), AttentionPass(Nothing(), TokenLayout((1, 1, 1))) as attend:
        pairs = [
            (loop(lambda: nothing(q, q, q, state)), loop(lambda: attend(q, q, q, None, None))) for _ in range(repeats)
        ]
    cost = median(with_core - without for without, with_core in pairs)
    print(f"the core, per attention call: {cost:.2f} us (median of {repeats} pairs of {calls} calls); goal 3 us")


def start_up(title: str, arguments: list[str], repeats: int = 9) -> None:
    """Wall time of a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def once() -> None:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)

    once()
    print(f"{title}: {median(timed(once) for _ in range(repeats)):.3f} s (median of {repeats})")


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
