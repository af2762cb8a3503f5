"""What only a CUDA device can show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import AttentionCall, Role, VideoGenerator, attach
from fastvideo_core.errors import BackendOutputError
from tests.support.models import SIZE, build_wan_pipeline, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]

SHORT: dict[str, Any] = {**SIZE, "guidance_scale": 3.0, "seed": 7, "save_video": False}


def test_torch_sdpa_gives_the_bare_pipeline_s_frames() -> None:
    pipe = build_wan_pipeline().to("cuda")
    bare = run(pipe)
    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        np.testing.assert_allclose(run(pipe), bare, atol=1e-5)
        assert fv.receipt.device.startswith("cuda")
        assert fv.receipt.peak_memory_bytes


def test_bfloat16_is_the_default(wan_folder: Path) -> None:
    with VideoGenerator.from_pretrained(wan_folder) as generator:
        receipt = generator.generate_video("cat", **SHORT).receipt
    assert (receipt.device.split(":")[0], receipt.dtype) == ("cuda", "bfloat16")


@pytest.mark.parametrize("pin_cpu_memory", [False, True])
def test_offloading_changes_where_weights_lie_and_nothing_else(wan_folder: Path, pin_cpu_memory: bool) -> None:
    with VideoGenerator.from_pretrained(wan_folder, dtype="float32") as generator:
        expected = generator.generate_video("cat", **SHORT).frames
    with VideoGenerator.from_pretrained(
        wan_folder,
        dtype="float32",
        dit_cpu_offload=True,
        vae_cpu_offload=True,
        text_encoder_cpu_offload=True,
        pin_cpu_memory=pin_cpu_memory,
    ) as generator:
        result = generator.generate_video("cat", **SHORT)
    np.testing.assert_allclose(result.frames, expected, atol=1e-5)
    assert result.receipt.device.startswith("cuda")


def test_the_guard_of_sage_attn_never_waits_for_the_gpu() -> None:
    from fv_sage.guard import FiniteGuard

    guard = FiniteGuard("TEST")
    attend = guard.watch(lambda query, key, value, call: query)
    good, bad = torch.zeros(1, 4, 2, 8, device="cuda"), torch.full((1, 4, 2, 8), float("nan"), device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(20):
            for layer in range(3):
                attend(good, good, good, AttentionCall(Role.SELF, layer=layer, step=step, branch="cond"))
        attend(bad, bad, bad, AttentionCall(Role.SELF, layer=0, step=20, branch="cond"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with pytest.raises(BackendOutputError, match="layer 0 of SELF attention, step 20"):
        guard.finish()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when it compiles
def test_compiled_frames_are_the_eager_ones(wan_folder: Path) -> None:
    with VideoGenerator.from_pretrained(wan_folder, dtype="float32") as generator:
        expected = generator.generate_video("cat", **SHORT).frames
    with VideoGenerator.from_pretrained(wan_folder, dtype="float32", compile=True) as generator:
        np.testing.assert_allclose(generator.generate_video("cat", **SHORT).frames, expected, atol=1e-3)


def test_a_planned_policy_never_waits_for_the_gpu() -> None:
    from fv_teacache.policy import TeaCache

    pipe = build_wan_pipeline().to("cuda")
    pipe.scheduler.set_timesteps(12, device="cuda")
    latents, text = torch.randn(1, 16, 3, 4, 6, device="cuda"), torch.randn(1, 7, 16, device="cuda")
    with attach(pipe, cache=TeaCache(0.5, coefficients=(0.2, 0.0))) as fv:
        with pipe.progress_bar(total=12) as bar, torch.no_grad():
            for number, timestep in enumerate(pipe.scheduler.timesteps):
                if number == 1:
                    torch.cuda.set_sync_debug_mode("error")
                with pipe.transformer.cache_context("cond"):
                    pipe.transformer(latents, timestep.expand(1), text, return_dict=False)
                bar.update()
            torch.cuda.set_sync_debug_mode("default")
        assert fv.receipt.steps_skipped["cond"] > 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when it compiles
def test_skipped_steps_are_the_same_compiled(wan_folder: Path) -> None:
    options = {**SHORT, "num_inference_steps": 8, "cache": "TAYLORSEER@3"}
    with VideoGenerator.from_pretrained(wan_folder, dtype="float32") as generator:
        expected = generator.generate_video("cat", **options)
    with VideoGenerator.from_pretrained(wan_folder, dtype="float32", compile=True) as generator:
        result = generator.generate_video("cat", **options)
    np.testing.assert_allclose(result.frames, expected.frames, atol=1e-3)
    assert result.receipt.steps_skipped == expected.receipt.steps_skipped
    assert sum(result.receipt.steps_skipped.values()) > 0
