from pathlib import Path

import pytest
from fv_magcache import MagCache

from fastvideo_core import attach
from fastvideo_core.errors import InputError, PolicyMismatchError
from fastvideo_core.testing import CachePolicySuite, small_pipeline

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
