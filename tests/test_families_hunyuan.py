"""HunyuanVideo-1.5, Framepack, and pipelines of HunyuanVideo and CogVideoX with images and videos, pass the suite."""

from __future__ import annotations

from typing import Any

import torch

from fastvideo_core.testing import ModelFamilySuite
from tests.support.families import FAMILIES
from tests.support.models_hunyuan import (
    build_hunyuan15_image_pipeline,
    build_hunyuan15_pipeline,
    hunyuan15_latents,
)


class OfHunyuan15(ModelFamilySuite):
    """The suite on HunyuanVideo-1.5."""

    family = FAMILIES["HunyuanVideo-1.5"]
    size = (9, 32, 48)
    cuts_text = True

    def build(self) -> Any:
        return build_hunyuan15_pipeline()

    def generate(self, pipe: Any) -> torch.Tensor:
        return hunyuan15_latents(pipe, num_inference_steps=4)


class TestHunyuanVideo15(OfHunyuan15):
    pass


class TestHunyuanVideo15Image(OfHunyuan15):
    def build(self) -> Any:
        return build_hunyuan15_image_pipeline()


del OfHunyuan15
