"""Sliding Tile Attention on this machine: python benchmarks/sta.py [--parts "canvases orders wan hunyuan"] [--quick].

    canvases  each kernel's speed against the density of its windows, on a canvas that 6x8x8 divides and on two that
              it does not: HunyuanVideo's 30x48x80, Wan's 21x30x52 and LTX-Video's 16x22x38 tokens
    orders    blocks of HunyuanVideo with tokens ordered once per forward pass, and at each call
    wan       a forward pass of Wan 2.1 1.3B, 81 frames of 480x832, compiled
    hunyuan   a forward pass of HunyuanVideo, 30x48x80 tokens; --fp8 adds linear layers in FP8, and --one-in 5 makes
              it with a fifth of the blocks, for a profile within minutes

Weights are random. Everything in a table alternates in one run, every second round backwards, with what the others are
compared to in the middle. Block lists are built before timing starts, and the GPU is busy while a kernel is launched,
as it is inside a model. --profile tells where the GPU's time goes in models. benchmarks/results.py has the file that is
written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
import torch
from attention import describe
from fv_sta.default import default_for
from fv_sta.kernels import KERNELS, dense
from fv_sta.sparse import Sparse, cost_of
from fv_sta.tiles import Tiling, Triple, by, tiling_for
from fv_sta.windows import is_full
from results import Results, Table, table
from sta_models import hunyuan, orders, wan
from timing import alternate, in_the_middle, ratio

PARTS = ("canvases", "orders", "wan", "hunyuan")
DENSE = "dense"
DEFAULT_PARTS = "canvases orders wan"


@dataclass(frozen=True)
class Canvas:
    """A grid of tokens with what stands behind it, and the patterns to measure on it."""

    name: str
    grid: Triple
    heads: int
    head_dim: int
    text: int
    patterns: tuple[tuple[Triple, Triple], ...]
    """Tile and window."""


def chosen(grid: Triple) -> tuple[tuple[Triple, Triple], ...]:
    """The default tile with its window, and the one that pads least with 3,3,3."""
    default, auto = default_for(grid), tiling_for(grid, None)
    time, height, width = (min(3, count) for count in auto.tiles)
    return ((default.tile, default.window), (auto.tile, (time, height, width)))


Tensors = tuple[torch.Tensor, ...]
WIDE: tuple[Triple, ...] = ((3, 3, 3), (3, 3, 5), (5, 3, 3), (5, 6, 1), (1, 6, 10))
WAN, LTX = (21, 30, 52), (16, 22, 38)
SMALL: Triple = (2, 8, 8)
CANVASES = (
    Canvas("hunyuan", (30, 48, 80), 24, 128, 256, tuple(((6, 8, 8), window) for window in WIDE)),
    Canvas("wan", WAN, 12, 128, 0, (*chosen(WAN), ((6, 8, 8), (3, 3, 3)), (SMALL, (3, 3, 3)), (SMALL, (5, 3, 5)))),
    Canvas("ltx", LTX, 32, 128, 0, (*chosen(LTX), ((6, 8, 8), (3, 3, 3)), (SMALL, (3, 1, 3)), (SMALL, (5, 3, 3)))),
)
QUICK = (
    Canvas("full", (12, 16, 16), 4, 64, 0, (((4, 4, 8), (1, 1, 1)), ((4, 4, 8), (1, 3, 1)))),
    Canvas("ragged", (7, 10, 13), 4, 64, 17, (((4, 4, 8), (1, 1, 1)), ((2, 8, 8), (1, 1, 2)))),
)


@click.command()
@click.option("--parts", default=DEFAULT_PARTS, show_default=True, help=f"Of {' '.join(PARTS)}.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--quick", is_flag=True, help="Small canvases and models, to try the script.")
@click.option("--rounds", default=11, type=click.IntRange(1), show_default=True)
@click.option("--compiled/--eager", default=True, show_default=True, help="Of hunyuan.")
@click.option("--fp8", is_flag=True, help="Of hunyuan: also with linear layers in FP8 (torchao).")
@click.option("--one-in", default=1, type=click.IntRange(1, 20), show_default=True, help="Of hunyuan's blocks.")
@click.option("--profile", is_flag=True, help="Of wan and hunyuan: where the GPU's time goes.")
def main(
    parts: str, device: str, quick: bool, rounds: int, compiled: bool, fp8: bool, one_in: int, profile: bool
) -> None:
    """Print what was measured, and write it."""
    if unknown := set(parts.split()) - set(PARTS):
        raise click.UsageError(f"--parts has {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if not parts.split():
        raise click.UsageError(f"--parts is empty; there are {', '.join(PARTS)}")
    print(describe(device))
    results = Results("sta", device)
    models: dict[str, Callable[[], Table]] = {
        "orders": partial(orders, quick, device, rounds),
        "wan": partial(wan, quick, device, rounds, profile),
        "hunyuan": partial(hunyuan, quick, device, rounds, compiled, fp8, one_in, profile),
    }
    for part in parts.split():
        for made in by_canvas(quick, device, rounds) if part == "canvases" else (models[part](),):
            results.add(made)
            if device == "cuda":
                torch.cuda.empty_cache()
    if not quick:
        results.write()


def by_canvas(quick: bool, device: str, rounds: int) -> Iterator[Table]:
    """A table for each canvas."""
    found = usable(device)
    for canvas in QUICK if quick else CANVASES:
        yield windows_of(canvas, found, torch.bfloat16 if device == "cuda" else torch.float32, device, rounds)


def windows_of(canvas: Canvas, kernels: list[str], dtype: torch.dtype, device: str, rounds: int) -> Table:
    """Each kernel at each window, and how much of the saving in work becomes a saving in time.

    That is against the dense run of the same kernel: FlashAttention 4's own for fa4, else with a window of all tiles.
    """
    torch.manual_seed(0)
    tensors: dict[Triple, Tensors] = {}

    def random(places: int) -> Tensors:
        shape = (1, places + canvas.text, canvas.heads, canvas.head_dim)
        return tuple(torch.randn(shape, dtype=dtype, device=device) for _ in range(3))

    q, k, v = random(math.prod(canvas.grid))
    used = dense(q, k, v, None)[1].kernel
    calls: dict[str, Callable[[], object]] = {DENSE: partial(dense, q, k, v, None), "SDPA": partial(sdpa, q, k, v)}
    notes: dict[str, dict[str, Any]] = {DENSE: {"kernel": used}, "SDPA": {}}
    own_dense: dict[str, str] = {}
    for name in kernels:
        if name == "fa4" and used.startswith("flash_attn"):
            own_dense[name] = DENSE
        for tile, window in canvas.patterns:
            tiling = Tiling(canvas.grid, tile)
            if tile not in tensors:
                tensors[tile] = random(tiling.places)
            for shown in (window, tiling.tiles) if name not in own_dense else (window,):
                sparse = Sparse(tiling, (shown,) * canvas.heads, canvas.text, canvas.text, None)
                if KERNELS[name].mismatch(sparse, canvas.head_dim, str(dtype)[6:], device) is not None:
                    continue
                full = is_full(shown, tiling.tiles)
                title = f"{name} {by(tile)} {'full' if full else by(shown)}"
                if full:
                    own_dense[name] = title
                calls[title] = partial(KERNELS[name].load(), *tensors[tile], sparse)
                density = cost_of(tiling, shown, canvas.text, canvas.text)
                padding = tiling.places / tiling.tokens - 1
                notes[title] = {"kernel": name, "density": density, "padding": padding}
    with torch.inference_mode():
        seconds = alternate(in_the_middle(calls, DENSE), device, rounds, queued=True)
    for title, note in notes.items():
        own = own_dense.get(note.get("kernel", ""))
        if own and title != own and own in seconds:
            note["of 1/density"] = ratio(seconds[own], seconds[title]) * note["density"]
    shape = f"{by(canvas.grid)} tokens and {canvas.text} of text, {canvas.heads} heads of {canvas.head_dim}, {dtype}"
    return table(f"canvas {canvas.name}", shape, seconds, DENSE, notes)


def usable(device: str) -> list[str]:
    """The kernels that are there."""
    found = []
    for name, kernel in KERNELS.items():
        probe = kernel.probe(device)
        if probe.available:
            found.append(name)
        else:
            print(f"{name} is not measured: {probe.reason}")
    return found


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


if __name__ == "__main__":
    main()
