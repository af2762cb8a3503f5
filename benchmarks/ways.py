"""Ways to run one forward pass of a transformer, compared in rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from results import Table, table
from timing import in_the_middle, timed, turn

from fastvideo_core import attach

BARE = "bare diffusers"
WARM_UP = 1
"""Rounds that are not counted; each pass that is timed follows one that may compile."""
KINDS = {
    "attention": ("flash", "fmha", "attn", "attention", "sdpa", "flex", "sta_"),
    "matrix products": ("gemm", "cutlass", "nvjet", "cublas", "matmul", "_mm_"),
}
"""What the names of a GPU's kernels have in them, by what they do; the first that fits counts."""
FUSED = ("triton_poi", "triton_red", "triton_per")
"""How the names of kernels begin that inductor makes of what is neither; the names of what they fuse follow."""


@dataclass(frozen=True)
class Way:
    """One way to run a transformer: the pipeline, and what is around its forward passes."""

    pipe: Any
    around: Callable[[Any], AbstractContextManager[Any]] = nullcontext


def backend(name: str, **config: Any) -> Callable[[Any], AbstractContextManager[Any]]:
    """Attached with a backend of ours, in a run of one step."""

    @contextmanager
    def around(pipe: Any) -> Iterator[None]:
        with attach(pipe, attention_backend=name, attention_config=config or None, cache="none") as fv, fv.run(1):
            yield

    return around


def diffusers_own(name: str) -> Callable[[Any], AbstractContextManager[Any]]:
    """A backend of diffusers, as its own users set it."""

    @contextmanager
    def around(pipe: Any) -> Iterator[None]:
        from diffusers.models.attention_dispatch import _AttentionBackendRegistry

        before = _AttentionBackendRegistry._active_backend  # which it also sets, and does not set back
        pipe.transformer.set_attention_backend(name)
        try:
            yield
        finally:
            pipe.transformer.reset_attention_backend()
            _AttentionBackendRegistry._active_backend = before

    return around


def in_ways(
    name: str,
    title: str,
    ways: Mapping[str, Way],
    inputs: dict[str, Any],
    device: str,
    rounds: int,
    profile: bool = False,
    base: str = BARE,
) -> Table:
    """Seconds of a forward pass in each way that can run here; every second round backwards."""
    there = dict(in_the_middle(ways, base))
    seconds: dict[str, list[float]] = {}
    with torch.inference_mode(), torch._dynamo.config.patch(recompile_limit=64):
        for number in range(rounds + WARM_UP):
            for title_of_way in turn(there, number):
                try:
                    taken = one_pass(there[title_of_way], inputs, device)
                except Exception as error:  # of whatever a kernel, or a compiler, lacks here
                    if number or title_of_way == base:
                        raise
                    print(f"{title_of_way} is not measured: {str(error).splitlines()[0]}", flush=True)
                    there[title_of_way] = Way(None)
                    continue
                print(f"round {number + 1 - WARM_UP}: {title_of_way} {taken:.3f} s", flush=True)  # 0 and below warm up
                if number >= WARM_UP:
                    seconds.setdefault(title_of_way, []).append(taken)
            there = {one: way for one, way in there.items() if way.pipe is not None}
        notes = {}
        for one in seconds if profile and device == "cuda" else ():
            print(f"\n{one}")
            notes[one] = where_time_goes(there[one], inputs)
    return table(name, title, {one: seconds[one] for one in there}, base, notes)


def one_pass(way: Way, inputs: dict[str, Any], device: str) -> float:
    """Seconds of the second of two passes: the first may compile, and fills what is kept."""
    with way.around(way.pipe):
        way.pipe.transformer(**inputs)
        return timed(lambda: way.pipe.transformer(**inputs), device)


def where_time_goes(way: Way, inputs: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds on the GPU by kind of kernel; the ten that take most are printed."""
    with way.around(way.pipe):
        way.pipe.transformer(**inputs)
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            way.pipe.transformer(**inputs)
            torch.cuda.synchronize()
    spent: dict[str, float] = dict.fromkeys((*KINDS, "rest"), 0.0)
    taken = {event.key: event.self_device_time_total / 1e3 for event in profile.key_averages()}
    for kernel, milliseconds in taken.items():
        spent[kind_of(kernel)] += milliseconds
    for kernel in sorted(taken, key=lambda kernel: -taken[kernel])[:10]:
        print(f"{taken[kernel]:10.2f} ms  {kind_of(kernel)}: {kernel[:100]}")
    return {f"{kind}, ms": value for kind, value in spent.items()}


def kind_of(kernel: str) -> str:
    """What a kernel does, by its name."""
    name = kernel.lower()
    if name.startswith(FUSED):
        return "rest"
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "rest")
