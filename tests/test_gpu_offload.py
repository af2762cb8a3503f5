"""Caching policies with weights that come to a GPU and go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fastvideo_core import attach
from tests.support import models
from tests.support.cached import CASES, STEPS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

GPU_OFFLOADS: dict[str, Callable[[Any], None]] = {
    "model": lambda pipe: pipe.enable_model_cpu_offload(),
    "sequential": lambda pipe: pipe.enable_sequential_cpu_offload(),
    "leaf": lambda pipe: offload_on_gpu(pipe, "leaf_level"),
    "leaf, with a stream": lambda pipe: offload_on_gpu(pipe, "leaf_level", use_stream=True),
    "block": lambda pipe: offload_on_gpu(pipe, "block_level", num_blocks_per_group=1),
    "block, with a stream": lambda pipe: offload_on_gpu(pipe, "block_level", num_blocks_per_group=1, use_stream=True),
}


def offload_on_gpu(pipe: Any, kind: str, **options: Any) -> None:
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and name != "transformer":
            part.to("cuda")
    pipe.transformer.enable_group_offload(torch.device("cuda"), offload_type=kind, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("offload", GPU_OFFLOADS)
def test_offloading_on_a_gpu(offload: str, case: str, dtype: torch.dtype) -> None:
    """Weights that come and go are the same weights: every bit and every decision is."""
    made = {}
    for where in ("there", "offloaded"):
        pipe, options = CASES[case].model()
        pipe.transformer.to(dtype)
        if where == "there":
            pipe.to("cuda")
        else:
            GPU_OFFLOADS[offload](pipe)
        with attach(pipe, attention_backend="TORCH_SDPA") as fv:
            bare = gpu_latents(pipe, options)
            fv.use_cache(CASES[case].never())
            assert torch.equal(gpu_latents(pipe, options), bare)
            fv.use_cache(CASES[case].skips())
            latents = gpu_latents(pipe, options)
            assert fv.receipt.cache is not None
            made[where] = latents, fv.receipt.cache.schedule
    assert made["there"][1] == made["offloaded"][1]
    assert torch.equal(made["there"][0], made["offloaded"][0])


def gpu_latents(pipe: Any, options: dict[str, Any]) -> torch.Tensor:
    arguments = {"output_type": "latent", "num_inference_steps": STEPS, **options}
    result: torch.Tensor = models.run(pipe, **arguments)
    return result.float().cpu()
