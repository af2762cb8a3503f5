import pytest
import torch
from diffusers.hooks import FirstBlockCacheConfig
from fv_firstblock import FirstBlockCache

from fastvideo_core import Action, Branch, CachedModel, Step, attach
from fastvideo_core.testing import CachePolicySuite, latents, small_pipeline


class TestFirstBlockCache(CachePolicySuite):
    policy = FirstBlockCache(threshold=0.2)
    never = FirstBlockCache(threshold=0)


class TestEachBranchForItself(CachePolicySuite):
    policy = FirstBlockCache(threshold=0.2, branches_decide_together=False)
    never = FirstBlockCache(threshold=0, branches_decide_together=False)


@pytest.mark.parametrize(("threshold", "action"), [(0.5, Action.COMPUTE), (0.501, Action.REUSE)])
def test_a_change_as_large_as_the_threshold_computes(threshold: float, action: Action) -> None:
    """ParaAttention's `are_two_tensors_similar` returns `diff.item() < threshold`."""
    policy, hidden = FirstBlockCache(threshold), torch.zeros(1, 6, 8)
    state = policy.start(Branch(CachedModel("m", "Wan", "", None, frozenset(), frozenset()), "cond", 0, 2))
    assert policy.decide(Step(0, 2, hidden, torch.full_like(hidden, 1.0)), state) is Action.COMPUTE
    assert policy.decide(Step(1, 2, hidden, torch.full_like(hidden, 1.5)), state) is action


def test_what_it_does_unless_told_otherwise() -> None:
    assert FirstBlockCache().settings_used() == {"threshold": 0.08, "branches_decide_together": True}


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.2])
def test_it_is_diffusers_own_first_block_cache(threshold: float) -> None:
    pipe = small_pipeline()
    with attach(pipe, cache=FirstBlockCache(threshold, branches_decide_together=False)) as fv:
        ours = latents(pipe, num_steps=20)
    assert sum(fv.receipt.steps_skipped.values()) > 3
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    assert torch.equal(ours, latents(pipe, num_steps=20))
