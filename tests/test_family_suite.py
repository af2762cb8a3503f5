"""The suite for model families passes those of the core and fails each seeded fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core import ModelFamily
from fastvideo_core.testing import ModelFamilySuite
from tests.support.conditioned import CONDITIONED
from tests.support.families import FAMILIES
from tests.support.faulty_families import FAULTY
from tests.support.inner_run import failures
from tests.support.models import SIZE, build_wan_pipeline, run_to_latents
from tests.support.policies import PIPELINES


def build_wan_that_breaks() -> Any:
    """A Wan whose blocks cannot be compiled as a whole."""
    pipe = build_wan_pipeline()
    for block in pipe.transformer.blocks:
        block.norm1 = Breaking()
    return pipe


class Breaking(torch.nn.Module):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return hidden


EVERY = {**PIPELINES, **CONDITIONED, "Wan that breaks": (build_wan_that_breaks, {})}


class OfTheCore(ModelFamilySuite):
    """The suite on a pipeline of the tests."""

    kind = ""

    def build(self) -> Any:
        return EVERY[self.kind][0]()

    def generate(self, pipe: Any) -> torch.Tensor:
        more = {"Wan 2.2": 5, "WanVideoToVideo": 4}  # for both experts; and it leaves one out
        options = {**EVERY[self.kind][1], "num_inference_steps": more.get(self.kind, 3)}
        return torch.from_numpy(run_to_latents(pipe, **options))


def suite(kind: str, family: str | ModelFamily, **changes: Any) -> type:
    """The suite on a pipeline and a family, which is one of the core if it is named."""
    size = {**SIZE, **{name: value for name, value in EVERY[kind][1].items() if value is not None}}
    frames_height_width = (size["num_frames"], size["height"], size["width"])
    own = {
        "kind": kind,
        "family": FAMILIES[family] if isinstance(family, str) else family,
        "size": frames_height_width,
        **changes,
    }
    return type("Test", (OfTheCore,), own)


TestWan = suite("Wan 2.1", "Wan")
TestWanImage = suite("Wan 2.1 image", "Wan")
TestWanPerToken = suite("Wan 2.2 per token", "Wan")
TestWanVideo = suite("WanVideoToVideo", "Wan")
TestHunyuanVideo = suite("HunyuanVideo", "HunyuanVideo", cuts_text=True)
TestSkyreels = suite("HunyuanSkyreelsImageToVideo", "HunyuanVideo", cuts_text=True)
TestLTXVideo = suite("LTX-Video", "LTX-Video")
TestLTXImage = suite("LTXImageToVideo", "LTX-Video")
TestCogVideoX = suite("CogVideoX", "CogVideoX")
TestMochi = suite("Mochi", "Mochi")


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTY)
def test_a_seeded_fault_fails_the_suite(fault: str, tmp_path: Path) -> None:
    source = f"""
from tests.support.faulty_families import FAULTY
from tests.test_family_suite import suite

kind, family, _ = FAULTY[{fault!r}]
TestFault = suite(kind, family)
"""
    expected = FAULTY[fault][2]
    failed = failures(tmp_path, source, "-k", expected)
    assert set(failed) == {expected}


def test_every_test_of_the_suite_is_failed_by_a_fault() -> None:
    ours = {name for name in vars(ModelFamilySuite) if name.startswith("test_")}
    assert ours - {expected for _, _, expected in FAULTY.values()} == {"test_discovery_does_not_import_torch"}
