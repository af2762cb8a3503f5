from typing import Any

import pytest
import torch
from fv_dbcache import DBCache

from fastvideo_core import Action, Branch, CachedModel, Step, attach
from fastvideo_core.errors import BackendNotUsedError, FastVideoError, PolicyMismatchError
from fastvideo_core.testing import CachePolicySuite, latents, small_pipeline


class TestDBCache(CachePolicySuite):
    policy = DBCache(threshold=0.2)
    never = DBCache(threshold=0)


class TestEachBranchForItself(CachePolicySuite):
    policy = DBCache(threshold=0.2, branches_decide_together=False)
    never = DBCache(threshold=0, branches_decide_together=False)


def cache_dit(blocks: tuple[int, int], threshold: float, together: bool, **limits: int) -> tuple[Any, list[int]]:
    """What cache-dit makes, and the steps that it skipped."""
    package = pytest.importorskip("cache_dit")
    pipe = small_pipeline(num_layers=6)
    config = package.DBCacheConfig(
        Fn_compute_blocks=blocks[0],
        Bn_compute_blocks=blocks[1],
        residual_diff_threshold=threshold,
        max_warmup_steps=limits.get("warm_up", 0),
        max_continuous_cached_steps=limits.get("max_skips", 0) or -1,
        num_inference_steps=20,
        enable_separate_cfg=True,
        cfg_diff_compute_separate=not together,
    )
    package.enable_cache(pipe, cache_config=config)
    made = latents(pipe, num_steps=20)
    stats = package.summary(pipe)[0]
    return made, [*stats.cached_steps, *stats.cfg_cached_steps]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("together", "limits"), [(False, {}), (True, {}), (False, {"warm_up": 4, "max_skips": 2})], ids=str
)
@pytest.mark.parametrize("blocks", [(1, 0), (2, 0), (2, 1), (1, 2), (3, 1)], ids=lambda two: "F{}B{}".format(*two))
def test_it_is_cache_dit_s(blocks: tuple[int, int], limits: dict[str, int], together: bool) -> None:
    policy = DBCache(0.15, *blocks, **limits, branches_decide_together=together)
    pipe = small_pipeline(num_layers=6)
    with attach(pipe, attention_backend="TORCH_SDPA", cache=policy) as fv:
        ours = latents(pipe, num_steps=20)
    theirs, skipped = cache_dit(blocks, 0.15, together, **limits)
    assert sum(fv.receipt.steps_skipped.values()) == len(skipped) > 3
    assert torch.equal(ours, theirs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("policy", [None, DBCache(0.15)], ids=["no policy", "DBCACHE"])
def test_beside_cache_dit_itself_it_is_refused(policy: DBCache | None) -> None:
    """Whichever comes first: two caches would skip on top of one another, and one of them uncounted."""
    package = pytest.importorskip("cache_dit")
    config = package.DBCacheConfig(Fn_compute_blocks=1, Bn_compute_blocks=0)
    refused = r"none of the WanTransformer3DModel's blocks .*, as cache-dit does"
    pipe = small_pipeline(num_layers=6)
    bare = latents(pipe, num_steps=3)
    with attach(pipe, cache=policy):
        package.enable_cache(pipe, cache_config=config)
        with pytest.raises(BackendNotUsedError, match=refused):
            latents(pipe, num_steps=3)
        package.disable_cache(pipe)
    assert torch.equal(latents(pipe, num_steps=3), bare)
    package.enable_cache(pipe, cache_config=config)
    with attach(pipe, cache=policy), pytest.raises(BackendNotUsedError, match=refused):
        latents(pipe, num_steps=3)


def test_in_a_token_order_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sliding tiles whose window is the whole video are full attention, in another order of the tokens."""
    pytest.importorskip("fv_sta")
    monkeypatch.setenv("FASTVIDEO_STA_TILE", "2,8,8")
    monkeypatch.setenv("FASTVIDEO_STA_WINDOW", "4,1,1")
    made, skipped = [], []
    for backend in ("TORCH_SDPA", "SLIDING_TILE_ATTN"):
        pipe = small_pipeline(num_layers=6)
        with attach(pipe, attention_backend=backend, cache=DBCache(0.15, 2, 1)) as fv:
            made.append(latents(pipe, num_steps=12, height=64, width=48, num_frames=25))
        skipped.append(fv.receipt.steps_skipped)
    assert skipped[0] == skipped[1]
    assert sum(skipped[0].values()) > 3
    torch.testing.assert_close(made[0], made[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 2}, "threshold is '2': input should be less than or equal to 1"),
        ({"first_blocks": 0}, "first_blocks is '0': input should be greater than or equal to 1"),
        ({"last_blocks": True}, "last_blocks is 'True': input should be a valid integer"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FastVideoError, match=message):
        DBCache(**settings)


@pytest.mark.parametrize(("threshold", "action"), [(0.5, Action.COMPUTE), (0.501, Action.REUSE)])
def test_a_change_as_large_as_the_threshold_computes(threshold: float, action: Action) -> None:
    """cache-dit's `can_cache` returns `diff < threshold`."""
    policy, hidden = DBCache(threshold), torch.zeros(1, 6, 8)
    state = policy.start(Branch(CachedModel("m", "Wan", "", None, frozenset(), frozenset()), "cond", 0, 2))
    assert policy.decide(Step(0, 2, hidden, torch.full_like(hidden, 1.0)), state) is Action.COMPUTE
    assert policy.decide(Step(1, 2, hidden, torch.full_like(hidden, 1.5)), state) is action


def test_what_it_does_unless_told_otherwise() -> None:
    """F1B1, no warm-up, no limit, and branches together, as the README and the help of the settings say."""
    usual = {"threshold": 0.08, "first_blocks": 1, "last_blocks": 1, "warm_up": 0, "max_skips": 0}
    assert DBCache().settings_used() == {**usual, "branches_decide_together": True}


def test_more_blocks_than_there_are() -> None:
    with pytest.raises(PolicyMismatchError, match=r"the first 2 and the last 2 blocks, and .* has 4"):
        attach(small_pipeline(), cache=DBCache(0.1, 2, 2))
