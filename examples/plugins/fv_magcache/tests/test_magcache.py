import json
from pathlib import Path

import pytest
import torch
from diffusers.hooks import MagCacheConfig
from fv_magcache import MagCache
from fv_magcache.__main__ import _Magnitudes

from fastvideo_core import Branch, CachedModel, attach
from fastvideo_core.errors import InputError, PolicyMismatchError
from fastvideo_core.testing import CachePolicySuite, latents, small_pipeline

RATIOS = [1.0, 1.3, 1.1, 1.02, 1.01, 0.99, 0.98, 0.97, 0.96, 0.9]


class TestMagCache(CachePolicySuite):
    policy = MagCache(threshold=0.2, ratios=RATIOS)
    never = MagCache(threshold=0, ratios=RATIOS)


def test_ratios_come_from_a_file_or_are_asked_for(tmp_path: Path) -> None:
    pipe = small_pipeline()
    with pytest.raises(
        PolicyMismatchError, match=r"MAGCACHE has no ratios for .*; measure them: python -m fv_magcache"
    ):
        attach(pipe, cache=MagCache())
    file = tmp_path / "magcache.json"
    file.write_text('{"ratios": [1.0, 1.0, 1.0]}')
    with attach(pipe, cache=MagCache(ratios=file)):
        pass
    with pytest.raises(InputError, match=r"has no ratios that can be read"):
        attach(pipe, cache=MagCache(ratios=tmp_path / "none.json"))


FINER = [ratio - 0.01 * (number % 3) for number, ratio in enumerate(RATIOS * 2)]


@pytest.mark.parametrize(
    ("threshold", "most", "retention", "ratios"),
    [
        (0.06, 3, 0.2, FINER),
        (0.12, 3, 0.2, FINER),
        (0.5, 2, 0.2, FINER),
        (0.5, 9, 0.4, FINER),
        (0.12, 3, 0.2, RATIOS),
        (0.5, 2, 0.11, FINER),
        (0.5, 2, 0.13, FINER),
        (0.5, 2, 0.125, FINER),
        (0.12, 3, 0.175, RATIOS),
    ],
)
def test_it_is_diffusers_own_magcache(threshold: float, most: int, retention: float, ratios: list[float]) -> None:
    pipe = small_pipeline()
    with attach(pipe, cache=MagCache(threshold=threshold, max_skips=most, retention=retention, ratios=ratios)) as fv:
        ours = latents(pipe, num_steps=20)
    assert sum(fv.receipt.steps_skipped.values()) > 3
    config = MagCacheConfig(
        threshold=threshold,
        max_skip_steps=most,
        retention_ratio=retention,
        num_inference_steps=20,
        mag_ratios=ratios,
    )
    pipe.transformer.enable_cache(config)
    assert torch.equal(ours, latents(pipe, num_steps=20))


MODEL = CachedModel("m", "Wan", "", None, frozenset(), frozenset())


@pytest.mark.parametrize(("threshold", "letters"), [(0.25, "CCCC"), (0.251, "CRCR")])
def test_an_error_as_large_as_the_threshold_computes(threshold: float, letters: str) -> None:
    """As published: `self.accumulated_err[self.cnt%2]<self.magcache_thresh`; diffusers has `<=` there."""
    policy = MagCache(threshold, retention=0, ratios=[1.0, 0.75, 0.75, 0.75]).for_model(MODEL)
    assert "".join(action.value[0] for action in policy.plan(Branch(MODEL, "", 0, 4))) == letters


def test_what_it_does_unless_told_otherwise() -> None:
    """Every step may be skipped here: so 4 in a row are, behind the first fifth."""
    policy = MagCache(ratios=[1.0] * 15).for_model(MODEL)
    letters = "".join(action.value[0] for action in policy.plan(Branch(MODEL, "", 0, 15)))
    assert letters == "CCC" + "RRRRC" * 2 + "RR"
    assert policy.threshold == 0.12


def test_what_is_measured_is_the_residual_over_that_of_the_step_before() -> None:
    pipe, measured = small_pipeline(), _Magnitudes()
    entering: list[torch.Tensor] = []
    leaving: list[torch.Tensor] = []
    pipe.transformer.patch_embedding.register_forward_hook(
        lambda module, args, output: entering.append(output.flatten(2).mT.clone())
    )
    pipe.transformer.norm_out.register_forward_pre_hook(lambda module, args: leaving.append(args[0].clone()))
    with attach(pipe, cache=measured):
        latents(pipe, num_steps=6)
    sizes = [
        torch.linalg.vector_norm(left - hidden, dim=-1).mean().item()
        for hidden, left in zip(entering, leaving, strict=True)
    ]
    for index in range(1, 6):  # passes of the two branches alternate
        expected = [sizes[2 * index + branch] / sizes[2 * index - 2 + branch] for branch in range(2)]
        assert measured.seen[0, index] == pytest.approx(expected, rel=1e-5)
    assert len(measured.seen) == 5
    assert measured.ratios() == [1.0, *(sum(seen) / 2 for _, seen in sorted(measured.seen.items()))]


def test_experts_have_ratios_of_their_own(tmp_path: Path) -> None:
    pipe, measured = small_pipeline(experts=2), _Magnitudes()
    with attach(pipe, cache=measured) as fv:
        latents(pipe, num_steps=10)
    assert fv.receipt.cache is not None
    steps = [len(letters) for letters in fv.receipt.cache.schedule.values()][::2]
    each = measured.ratios()
    assert [len(of_one) for of_one in each if isinstance(of_one, list)] == steps
    assert all(len(seen) == 2 for seen in measured.seen.values()), "one for each branch"

    file = tmp_path / "magcache.json"
    file.write_text(json.dumps({"ratios": [[1.0, 1.0], [1.0, 9.0]]}))
    with attach(pipe, cache=MagCache(ratios=file, retention=0, max_skips=9)) as fv:
        latents(pipe, num_steps=10)
    assert fv.receipt.cache is not None
    for title, letters in fv.receipt.cache.schedule.items():
        middle = 1 + len(letters) // 2 if title.endswith("2") else len(letters)
        assert letters[:middle].count("C") <= 2
        assert letters[middle:].count("C") == (len(letters) - middle if title.endswith("2") else 0)


def test_ratios_of_one_expert_are_refused_for_two() -> None:
    with pytest.raises(PolicyMismatchError, match=r"has 2 experts, and there are ratios for 1; measure them on this"):
        attach(small_pipeline(experts=2), cache=MagCache(ratios=RATIOS))
    with pytest.raises(PolicyMismatchError, match=r"has 1 experts, and there are ratios for 2"):
        attach(small_pipeline(), cache=MagCache(ratios=[RATIOS, RATIOS]))
