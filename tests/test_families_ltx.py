"""The suite for model families on LTX-2, and on an LTX-Video that is told coordinates rather than a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core.testing import ModelFamilySuite
from tests.support.families import FAMILIES
from tests.support.faulty_ltx import FAULTY
from tests.support.inner_run import failures
from tests.support.models_ltx import (
    LTX2_SIZE,
    LTX_SIZE,
    build_ltx2_pipeline,
    build_ltx_condition_pipeline,
    conditions,
    run_ltx,
    run_ltx2,
)


class TestLTX2(ModelFamilySuite):
    """Guidance in all of its passes: by text and without, with a block that does not attend, each stream alone."""

    family = FAMILIES["LTX-2"]
    size = (LTX2_SIZE["num_frames"], LTX2_SIZE["height"], LTX2_SIZE["width"])

    def build(self) -> Any:
        return build_ltx2_pipeline()

    def generate(self, pipe: Any) -> torch.Tensor:
        return run_ltx2(pipe)

    def generate_compiled(self, pipe: Any) -> torch.Tensor:
        """A block that may not attend asks a tensor whether it does, and each stream alone is another graph."""
        return run_ltx2(pipe, stg_scale=0.0, audio_stg_scale=0.0, modality_scale=1.0, audio_modality_scale=1.0)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
class TestLTXCondition(ModelFamilySuite):
    """An image at the start and one in the middle, whose tokens stand in front of the video's."""

    family = FAMILIES["LTX-Video"]
    size = (LTX_SIZE["num_frames"], LTX_SIZE["height"], LTX_SIZE["width"])

    def build(self) -> Any:
        return build_ltx_condition_pipeline()

    def generate(self, pipe: Any) -> torch.Tensor:
        return run_ltx(pipe, conditions=conditions(0, 8))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTY)
def test_a_seeded_fault_fails_the_suite(fault: str, tmp_path: Path) -> None:
    source = f"""
from tests.support.faulty_ltx import FAULTY
from tests.test_families_ltx import TestLTX2

TestFault = type("TestFault", (TestLTX2,), {{"family": FAULTY[{fault!r}][0]}})
del TestLTX2
"""
    expected = FAULTY[fault][1]
    assert set(failures(tmp_path, source, "-k", expected)) == {expected}
