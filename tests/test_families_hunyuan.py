"""HunyuanVideo-1.5, Framepack, and pipelines of HunyuanVideo and CogVideoX with images and videos, pass the suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fastvideo_core.testing import ModelFamilySuite
from tests.support import conditioned, models_hunyuan
from tests.support.families import FAMILIES
from tests.support.models import run_to_latents
from tests.support.models_hunyuan import hunyuan15_latents

IMAGE = torch.full((1, 3, 32, 48), 0.5)


def suite(family: str, build: Callable[[], Any], generate: Callable[[Any], torch.Tensor], cuts_text: bool) -> type:
    """The suite on pipelines of 9 frames of 32x48."""

    class Of(ModelFamilySuite):
        def build(self) -> Any:
            return build()

        def generate(self, pipe: Any) -> torch.Tensor:
            return generate(pipe)

    own: dict[str, Any] = {"family": FAMILIES[family], "size": (9, 32, 48), "cuts_text": cuts_text}
    return type("Test", (Of,), own)


def latents_of(kind: str) -> Callable[[Any], torch.Tensor]:
    """Latents of a pipeline of the other tests, with what it needs."""
    options = {**conditioned.CONDITIONED[kind][1], "num_inference_steps": 5}  # video-to-video leaves one out
    return lambda pipe: torch.from_numpy(run_to_latents(pipe, **options))


def conditioned_suite(kind: str, family: str, cuts_text: bool = False) -> type:
    return suite(family, conditioned.CONDITIONED[kind][0], latents_of(kind), cuts_text)


def framepack_latents(pipe: Any) -> torch.Tensor:
    """Latents of one section."""
    sections = pipe(
        **conditioned.CONDITIONED["HunyuanVideoImageToVideo"][1],
        height=32,
        width=48,
        num_frames=9,
        latent_window_size=3,
        num_inference_steps=4,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
    ).frames
    return torch.cat(sections, dim=2)


def hunyuan15(pipe: Any) -> torch.Tensor:
    return hunyuan15_latents(pipe, num_inference_steps=4)


TestHunyuanVideo15 = suite("HunyuanVideo-1.5", models_hunyuan.build_hunyuan15_pipeline, hunyuan15, True)
TestHunyuanVideo15Image = suite("HunyuanVideo-1.5", models_hunyuan.build_hunyuan15_image_pipeline, hunyuan15, True)
TestHunyuanVideoImage = conditioned_suite("HunyuanVideoImageToVideo", "HunyuanVideo", cuts_text=True)
TestHunyuanVideoTokenReplace = suite(
    "HunyuanVideo", models_hunyuan.build_token_replace_pipeline, latents_of("HunyuanVideoImageToVideo"), True
)
TestFramepack = suite("Framepack", models_hunyuan.build_framepack_pipeline, framepack_latents, False)
TestCogVideoXImage = conditioned_suite("CogVideoXImageToVideo", "CogVideoX")
TestCogVideoXVideo = conditioned_suite("CogVideoXVideoToVideo", "CogVideoX")
TestCogVideoXControl = conditioned_suite("CogVideoXFunControl", "CogVideoX")
