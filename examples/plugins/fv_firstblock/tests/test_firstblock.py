import pytest
import torch
from diffusers.hooks import FirstBlockCacheConfig
from fv_firstblock import FirstBlockCache

from fastvideo_core import attach
from fastvideo_core.testing import CachePolicySuite, latents, small_pipeline


class TestFirstBlockCache(CachePolicySuite):
    policy = FirstBlockCache(threshold=0.2)
    never = FirstBlockCache(threshold=0)


class TestEachBranchForItself(CachePolicySuite):
    policy = FirstBlockCache(threshold=0.2, branches_decide_together=False)
    never = FirstBlockCache(threshold=0, branches_decide_together=False)


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.2])
def test_it_is_diffusers_own_first_block_cache(threshold: float) -> None:
    pipe = small_pipeline()
    with attach(pipe, cache=FirstBlockCache(threshold, branches_decide_together=False)) as fv:
        ours = latents(pipe, num_steps=20)
    assert sum(fv.receipt.steps_skipped.values()) > 3
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    assert torch.equal(ours, latents(pipe, num_steps=20))
