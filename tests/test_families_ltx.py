"""The suite for model families on the LTX pipelines."""

from __future__ import annotations

from typing import Any

import torch

from fastvideo_core.testing import ModelFamilySuite
from tests.support.families import FAMILIES
from tests.support.models_ltx import LTX2_SIZE, build_ltx2_pipeline, run_ltx2


class TestLTX2(ModelFamilySuite):
    """Guidance in all its four passes: text, none, without attention in one block, each stream by itself."""

    family = FAMILIES["LTX-2"]
    size = (LTX2_SIZE["num_frames"], LTX2_SIZE["height"], LTX2_SIZE["width"])

    def build(self) -> Any:
        return build_ltx2_pipeline()

    def generate(self, pipe: Any) -> torch.Tensor:
        return run_ltx2(pipe)

    def generate_compiled(self, pipe: Any) -> torch.Tensor:
        """The perturbed block asks a tensor whether it is perturbed, which no graph can hold."""
        return run_ltx2(pipe, stg_scale=0.0, audio_stg_scale=0.0)
