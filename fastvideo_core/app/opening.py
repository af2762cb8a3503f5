"""What a generator was asked to load, as plain values that any process can load it from."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from fastvideo_core.app.loading import compile_blocks, load_pipeline, place_pipeline, shard_blocks
from fastvideo_core.app.model_info import ModelInfo, read_model
from fastvideo_core.app.quantization import Quantization
from fastvideo_core.app.studio import LocalStudio
from fastvideo_core.contract.attention import AttentionBackend
from fastvideo_core.contract.settings import Config
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.engine.parallel.degrees import Parallel


@dataclass(frozen=True)
class Opening:
    """A model, how it is loaded, and the backend on it.

    Attributes:
        device: such as "cuda:1"; of several processes "cuda" for one each.
        offload: the parts whose weights stay in the computer's memory.
        shard_weights: whether each process holds a part of the transformer's.
        vae_tiling: whether the video is decoded in tiles; None: where it would not fit.
        quantization: what weights are rounded to; None: nothing.
    """

    model_path: str
    device: str
    dtype: torch.dtype
    attention_backend: str | AttentionBackend | None
    attention_config: Config
    compile: bool
    offload: tuple[str, ...]
    pin_cpu_memory: bool
    shard_weights: bool = False
    vae_tiling: bool | None = None
    quantization: Quantization | None = None


def open_studio(opening: Opening, device: str, parallel: Parallel = None, info: ModelInfo | None = None) -> LocalStudio:
    """Load a model on a device, and put its backend on it."""
    info = info or read_model(load_plugins(), opening.model_path)
    start = time.perf_counter()
    pipe = load_pipeline(info, opening.dtype, *([opening.quantization] if opening.quantization else []))
    if opening.shard_weights:
        shard_blocks(pipe, info, device)
    place_pipeline(pipe, device, list(opening.offload), opening.pin_cpu_memory)
    if opening.compile:
        compile_blocks(pipe, info)
    seconds = time.perf_counter() - start
    return LocalStudio(
        pipe, info, opening.attention_backend, opening.attention_config, seconds, opening.vae_tiling, parallel
    )
