"""Sliding Tile Attention on this machine: python benchmarks/sta.py [--quick] [--whole].

Each kernel at several windows beside dense attention, alternating in one run; then a canvas that no tile divides, with
the default tile and the one that pads least; then blocks of HunyuanVideo's size with tokens ordered once per forward
pass and at each call; with --whole, and then that alone, a forward pass of all of its blocks, with random weights, by
backend. Block lists are built before timing starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Any

import click
import torch
from attention import alternate, describe, environment, ratio
from fv_sta.backend import SlidingTileAttention
from fv_sta.kernels import KERNELS, dense
from fv_sta.sparse import Sparse, work_of
from fv_sta.tiles import BLOCK, Tiling, Triple, by
from fv_sta.windows import is_full

from fastvideo_core import AttentionCall, Role, TokenLayout, attach
from fastvideo_core.errors import BackendError

CANVAS, QUICK_CANVAS = (30, 48, 80), (12, 16, 16)
RAGGED, QUICK_RAGGED = (21, 30, 52), (7, 10, 13)
WINDOWS: tuple[Triple, ...] = ((3, 3, 3), (3, 3, 5), (5, 3, 3), (5, 6, 1), (1, 6, 10), (5, 6, 10))
QUICK_WINDOWS: tuple[Triple, ...] = ((1, 1, 1), (1, 3, 1), (3, 4, 2))


@click.command()
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--quick", is_flag=True, help="Small canvases, to try the script.")
@click.option("--whole", is_flag=True, help="A forward pass of the whole model by backend, and nothing else.")
@click.option("--rounds", default=15, show_default=True)
def main(device: str, quick: bool, whole: bool, rounds: int) -> None:
    """Print what was measured."""
    if whole:
        for line in (describe(device), *whole_model(quick, device, rounds)):
            print(line)
        return
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    heads, head_dim = (4, 64) if quick else (24, 128)
    canvas, windows = (QUICK_CANVAS, QUICK_WINDOWS) if quick else (CANVAS, WINDOWS)
    tile = (4, 4, 8) if quick else (6, 8, 8)
    text = 0 if quick else 256
    print(describe(device))
    shape = (heads, head_dim)
    for line in windows_of(Tiling(canvas, tile), windows, shape, text, dtype, device, rounds):
        print(line)
    for line in ragged(QUICK_RAGGED if quick else RAGGED, shape, dtype, device, rounds):
        print(line)
    for line in orders(quick, device, rounds):
        print(line)


def windows_of(
    tiling: Tiling,
    windows: tuple[Triple, ...],
    shape: tuple[int, int],
    text: int,
    dtype: torch.dtype,
    device: str,
    rounds: int,
) -> Iterator[str]:
    """Milliseconds of each kernel at each window, and how much of the saving in work becomes a saving in time."""
    heads, head_dim = shape
    q, k, v = (torch.randn(1, tiling.places + text, heads, head_dim, dtype=dtype, device=device) for _ in range(3))
    calls: dict[tuple[str, Triple | None], Any] = {("dense", None): partial(dense, q, k, v, None)}
    calls["SDPA", None] = partial(sdpa, q, k, v)
    for name in usable():
        for window in windows:
            sparse = Sparse(tiling, (window,) * heads, text, text, None)
            if KERNELS[name].mismatch(sparse, head_dim, str(dtype)[6:], device) is None:
                calls[name, window] = partial(KERNELS[name].load(), q, k, v, sparse)
                # The dense run of the same kernel, which the saving is measured against.
                calls.setdefault((name, tiling.tiles), partial(KERNELS[name].load(), q, k, v, full(sparse)))
    with torch.inference_mode():
        seconds = alternate(calls, device, rounds)
    yield f"\ncanvas {by(tiling.grid)}, {text} tokens of text, {heads} heads of {head_dim}, {dtype}"
    for (name, of), taken in seconds.items():
        line = f"  {name:8} {by(of) if of else '':8} {1e3 * median(taken):9.2f} ms"
        if of is not None and not is_full(of, tiling.tiles):
            density = work_of(tiling, of, text, text) * BLOCK**2 / q.shape[1] ** 2
            faster = ratio(seconds[name, tiling.tiles], taken)
            line += f"  density {density:.3f}, {faster:6.2f} x its dense run: {faster * density:.2f} of 1/density"
        yield line


def full(sparse: Sparse) -> Sparse:
    """The same call with a window that is the whole canvas."""
    return Sparse(
        sparse.tiling, (sparse.tiling.tiles,) * len(sparse.windows), sparse.text_queries, sparse.text_keys, None
    )


def usable() -> list[str]:
    """The kernels that are there."""
    found = []
    for name, kernel in KERNELS.items():
        probe = kernel.probe()
        if probe.available:
            found.append(name)
        else:
            print(f"{name} is not measured: {probe.reason}")
    return found


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


def ragged(grid: Triple, shape: tuple[int, int], dtype: torch.dtype, device: str, rounds: int) -> Iterator[str]:
    """A canvas that no tile divides."""
    heads, head_dim = shape
    tokens = math.prod(grid)
    q, k, v = (torch.randn(1, tokens, heads, head_dim, dtype=dtype, device=device) for _ in range(3))
    calls: dict[str, Any] = {"dense": partial(dense, q, k, v, None)}
    notes = {"dense": ""}
    for setting in ("6,8,8", "auto"):
        with environment({"FASTVIDEO_STA_TILE": setting, "FASTVIDEO_STA_DENSE": "0"}):
            backend = SlidingTileAttention()
            attend = backend.load()
            tiling = backend.tiling(grid)
        call = AttentionCall(Role.SELF, 0, 0, 1, "", TokenLayout(grid))
        calls[setting] = partial(attend, q, k, v, call)
        attend(q, k, v, call)
        details = backend.run_details()
        notes[setting] = (
            f"tile {by(tiling.tile)}, padding {details['padding']:.1%}, windows {list(details['windows'])}, "
            f"density {details['density']:.3f}"
        )
    with torch.inference_mode():
        seconds = alternate(calls, device, rounds)
    yield f"\ncanvas {by(grid)}, ordered at each call"
    for name, taken in seconds.items():
        yield f"  {name:8} {1e3 * median(taken):9.2f} ms  {notes[name]}"


def orders(quick: bool, device: str, rounds: int) -> Iterator[str]:
    """A few blocks of HunyuanVideo with the tokens ordered once, and at each call."""
    pipe, inputs, grid = hunyuan_blocks(quick, device)
    seconds = {}
    for order in ("forward", "layer"):
        values: dict[str, Any] = {"order": order, "dense": 0}
        values |= {"tile": "4,4,8", "window": "1,3,1"} if quick else {}
        attached = attach(pipe, attention_backend="SLIDING_TILE_ATTN", attention_config=values)
        with attached as fv, fv.run(1), torch.inference_mode():
            seconds[order] = alternate({"": lambda: pipe.transformer(**inputs)}, device, rounds)[""]
    yield f"\none forward pass of {len(pipe.transformer.transformer_blocks)} double and "
    yield f"{len(pipe.transformer.single_transformer_blocks)} single blocks of HunyuanVideo, {by(grid)} tokens"
    for order, taken in seconds.items():
        title = "ordered once per forward pass" if order == "forward" else "ordered at each call"
        yield f"  {title:30} {1e3 * median(taken):9.2f} ms"


def whole_model(quick: bool, device: str, rounds: int) -> Iterator[str]:
    """A forward pass of HunyuanVideo with each backend that can run."""
    double, single = (2, 2) if quick else (20, 40)
    pipe, inputs, grid = hunyuan_blocks(quick, device, double, single)
    values = {"dense": 0, **({"tile": (4, 4, 8), "window": (1, 3, 1)} if quick else {})}
    seconds = {}
    for name in ("TORCH_SDPA", "FLASH_ATTN", "SLIDING_TILE_ATTN"):
        config = values if name == "SLIDING_TILE_ATTN" else None
        try:
            attached = attach(pipe, attention_backend=name, attention_config=config)
        except BackendError as error:
            yield f"{name} is not measured: {error}"
            continue
        with attached as fv, fv.run(1), torch.inference_mode():
            seconds[name] = alternate({"": lambda: pipe.transformer(**inputs)}, device, rounds, warm_up=1)[""]
    yield f"\none forward pass of HunyuanVideo ({double} double and {single} single blocks), {by(grid)} tokens, eager"
    plain = median(seconds["TORCH_SDPA"])
    for name, taken in seconds.items():
        low, high = 1e3 * min(taken), 1e3 * max(taken)
        middle = median(taken)
        yield f"  {name:18} {1e3 * middle:9.1f} ms ({low:.1f} to {high:.1f}), {plain / middle:.3f} x TORCH_SDPA"


def hunyuan_blocks(quick: bool, device: str, double: int = 2, single: int = 4) -> tuple[Any, dict[str, Any], Triple]:
    from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel

    grid = QUICK_CANVAS if quick else CANVAS
    sizes = {"num_attention_heads": 4, "attention_head_dim": 64, "rope_axes_dim": (16, 24, 24)} if quick else {}
    dtype = torch.float32 if quick else torch.bfloat16
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # 13 billion weights are not made in float32 first
    try:
        with torch.device(device):
            transformer = HunyuanVideoTransformer3DModel(num_layers=double, num_single_layers=single, **sizes)
    finally:
        torch.set_default_dtype(usual)
    parts = dict.fromkeys(("text_encoder", "tokenizer", "vae", "text_encoder_2", "tokenizer_2"))
    pipe = HunyuanVideoPipeline(
        transformer=transformer.to(dtype).eval(), scheduler=FlowMatchEulerDiscreteScheduler(), **parts
    )
    frames, height, width = grid
    return (
        pipe,
        {
            "hidden_states": torch.randn(1, 16, frames, 2 * height, 2 * width, device=device, dtype=dtype),
            "timestep": torch.tensor([500], device=device),
            "encoder_hidden_states": torch.randn(1, 256, 4096, device=device, dtype=dtype),
            "encoder_attention_mask": torch.arange(256, device=device)[None] < 64,
            "pooled_projections": torch.randn(1, 768, device=device, dtype=dtype),
            "guidance": torch.tensor([6000.0], device=device, dtype=dtype),
            "return_dict": False,
        },
        grid,
    )


if __name__ == "__main__":
    main()
