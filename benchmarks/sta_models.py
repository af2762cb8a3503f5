"""Forward passes of whole models with random weights, in the ways that sta.py compares."""

from __future__ import annotations

import copy
from typing import Any

import torch
from attention import LATENT, build_pipeline, wan_inputs
from fv_sta.tiles import Triple, by
from results import Table
from ways import BARE, Way, backend, diffusers_own, in_ways

HUNYUAN_GRID, QUICK_HUNYUAN_GRID = (30, 48, 80), (12, 16, 16)
QUICK_WINDOW: dict[str, Any] = {"tile": (4, 4, 8), "window": (1, 3, 1)}


def wan(quick: bool, device: str, rounds: int, profile: bool) -> Table:
    """Wan 2.1 1.3B, 81 frames of 480x832, compiled."""
    pipe = build_pipeline(quick, device)
    pipe.transformer.compile_repeated_blocks(fullgraph=True, dynamic=False)  # each order of tokens has its own size
    latent = (7, 20, 26) if quick else LATENT
    sta: dict[str, Any] = {"tile": (2, 8, 8), "window": (1, 1, 1)} if quick else {}
    ways = {
        "FLASH_ATTN": Way(pipe, backend("FLASH_ATTN")),
        "diffusers, cuDNN pinned": Way(pipe, diffusers_own("_native_cudnn")),
        BARE: Way(pipe),
        "STA": Way(pipe, backend("SLIDING_TILE_ATTN", dense=0, **sta)),
        "STA, auto": Way(pipe, backend("SLIDING_TILE_ATTN", dense=0, **(sta or {"tile": "auto"}))),
        "STA, 6x8x8": Way(pipe, backend("SLIDING_TILE_ATTN", dense=0, **(sta or {"tile": (6, 8, 8)}))),
    }
    title = f"one forward pass of {'a small Wan' if quick else 'Wan 2.1 1.3B'}, latents of {by(latent)}, compiled"
    return in_ways("wan", title, ways, wan_inputs(pipe, latent, device), device, rounds, profile)


def hunyuan(quick: bool, device: str, rounds: int, compiled: bool, fp8: bool, one_in: int, profile: bool) -> Table:
    """All blocks of HunyuanVideo, or one in so many."""
    double, single = (2, 2) if quick else (20 // one_in, 40 // one_in)
    pipe, inputs, grid = hunyuan_blocks(quick, device, double, single)
    sta = {"dense": 0, **(QUICK_WINDOW if quick else {"tile": (6, 8, 8), "window": (3, 3, 3)})}
    ways = {
        "FLASH_ATTN": Way(pipe, backend("FLASH_ATTN")),
        BARE: Way(pipe),
        "TORCH_SDPA": Way(pipe, backend("TORCH_SDPA")),
        "STA": Way(pipe, backend("SLIDING_TILE_ATTN", **sta)),
    }
    if fp8:
        ways["STA, FP8"] = Way(in_fp8(pipe), backend("SLIDING_TILE_ATTN", **sta))
    if compiled:
        for transformer in {id(way.pipe): way.pipe.transformer for way in ways.values()}.values():
            transformer.compile_repeated_blocks(fullgraph=True, dynamic=False)  # each order of tokens has its own size
    mode = "compiled" if compiled else "eager"
    title = f"one forward pass of HunyuanVideo ({double} double, {single} single blocks), {by(grid)} tokens, {mode}"
    name = "hunyuan" if one_in == 1 else f"hunyuan one in {one_in}"
    return in_ways(name, title, ways, inputs, device, rounds, profile)


def orders(quick: bool, device: str, rounds: int) -> Table:
    """A few blocks of HunyuanVideo with the tokens ordered once, and at each call."""
    pipe, inputs, grid = hunyuan_blocks(quick, device)
    sta = {"dense": 0, **(QUICK_WINDOW if quick else {})}
    ways = {
        f"ordered {'once' if order == 'forward' else 'at each call'}": Way(
            pipe, backend("SLIDING_TILE_ATTN", order=order, **sta)
        )
        for order in ("layer", "forward")
    }
    title = f"2 double and 4 single blocks of HunyuanVideo, {by(grid)} tokens, eager"
    return in_ways("orders", title, ways, inputs, device, rounds, base="ordered at each call")


def in_fp8(pipe: Any) -> Any:
    """The same pipeline with a copy of its transformer whose blocks multiply in FP8, scaled by rows as they come."""
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_

    transformer = copy.deepcopy(pipe.transformer)
    for blocks in (transformer.transformer_blocks, transformer.single_transformer_blocks):
        config = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False)
        quantize_(blocks, config)  # else inductor tunes all ways for minutes
    return type(pipe)(**{**pipe.components, "transformer": transformer})


def hunyuan_blocks(quick: bool, device: str, double: int = 2, single: int = 4) -> tuple[Any, dict[str, Any], Triple]:
    """A HunyuanVideoPipeline that has only a transformer, its inputs, and its grid of tokens."""
    from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel

    grid = QUICK_HUNYUAN_GRID if quick else HUNYUAN_GRID
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
