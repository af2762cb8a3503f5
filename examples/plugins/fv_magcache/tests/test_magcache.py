from pathlib import Path

import pytest
import torch
from diffusers.hooks import MagCacheConfig
from fv_magcache import MagCache

from fastvideo_core import attach
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
