"""Rounded weights, offload switches and tiles on a GPU, where they save what they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import VideoGenerator
from fastvideo_core.app.vae_tiling import MARGIN, decode_bytes
from tests.support.models import SIZE

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

SHORT: dict[str, Any] = {**SIZE, "guidance_scale": 3.0, "seed": 7, "save_video": False}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bnb-nf4", "bitsandbytes nf4"),
        ("bnb-int8", "bitsandbytes int8"),
        ("torchao-int8", "torchao"),
        ("torchao-fp8", "torchao"),
        ("fp8-layerwise", "FP8"),
    ],
)
def test_rounded_weights_run_on_a_gpu(name: str, kind: str, wan_folder: Path) -> None:
    if name.startswith("bnb"):
        pytest.importorskip("bitsandbytes")
    with VideoGenerator.from_pretrained(wan_folder, quantization=name) as generator:
        result = generator.generate_video("cat", **SHORT)
    assert kind in result.receipt.quantization["transformer"]
    assert np.isfinite(result.frames).all()
    assert result.receipt.dtype == "bfloat16"


@pytest.mark.parametrize("name", ["torchao-int8", "torchao-fp8", "fp8-layerwise"])
def test_rounded_weights_that_come_and_go_are_the_same(name: str, wan_folder: Path) -> None:
    made = []
    for offload in (False, True):
        with VideoGenerator.from_pretrained(wan_folder, quantization=name, dit_cpu_offload=offload) as generator:
            made.append(generator.generate_video("cat", **SHORT).frames)
    assert np.array_equal(*made)


def test_the_estimate_of_a_decode_covers_what_a_gpu_takes() -> None:
    """Of Wan's autoencoder with random weights, for 17 frames of 480x832."""
    from diffusers import AutoencoderKLWan

    with torch.device("cuda"):
        vae = AutoencoderKLWan().eval()
        latents = torch.zeros(1, 16, 5, 60, 104)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        vae.decode(latents)
    taken = torch.cuda.max_memory_allocated() - before
    estimated = decode_bytes(vae, latents.shape)
    assert 0.6 * taken <= estimated
    assert estimated * MARGIN >= 0.9 * taken
