"""Two processes that share one GPU make the video that one process makes, up to what a kernel rounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import VideoGenerator, VideoResult
from fastvideo_core.errors import BackendUnavailableError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]

PROMPT = "a red circle moving left on a white background"
SIZE: dict[str, Any] = {"height": 256, "width": 256, "num_frames": 45, "num_inference_steps": 10, "seed": 1}


def made(backend: str, config: dict[str, Any] | None, processes: int, **degrees: Any) -> VideoResult:
    with VideoGenerator.from_pretrained(
        "shapes",
        attention_backend=backend,
        attention_config=config,
        device="cuda:0",
        num_processes=processes,
        **degrees,
    ) as generator:
        result: VideoResult = generator.generate_video(PROMPT, save_video=False, **SIZE)
        return result


def apart(one: VideoResult, other: VideoResult) -> float:
    """The root of the mean squared difference of two videos, whose values are 0 to 1."""
    return float(np.sqrt(np.mean(np.square(one.frames.astype(np.float64) - other.frames))))


@pytest.mark.filterwarnings("ignore")  # those of FlashAttention 4, whose import would fail by them
@pytest.mark.parametrize(
    ("backend", "config"),
    [("FLASH_ATTN", None), ("SLIDING_TILE_ATTN", {"tile": (4, 8, 8), "window": (3, 1, 1), "dense": 0.2})],
)
@pytest.mark.parametrize("degrees", [{"sp_size": 2}, {"cfg_parallel": True}], ids=["sequence", "guidance"])
def test_two_processes_on_one_gpu(backend: str, config: dict[str, Any] | None, degrees: dict[str, Any]) -> None:
    """They differ by no more than two exact kernels do, whose sums are rounded in another order, in the same run."""
    try:
        alone = made(backend, config, 1)
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    shared = made(backend, config, 2, **degrees)
    kernels = [{role: one.kernel for role, one in made.receipt.attention.items()} for made in (alone, shared)]
    assert kernels[0] == kernels[1]
    assert shared.receipt.parallel is not None
    assert [one.device for one in shared.receipt.parallel.ranks] == ["cuda:0", "cuda:0"]
    rounded = apart(made("TORCH_SDPA", None, 1), made("FLASH_ATTN", None, 1))
    print(f"\n{backend}, {degrees}: {apart(alone, shared):.6f} apart, two kernels {rounded:.6f}")
    assert apart(alone, shared) < 2 * rounded + 1e-3
