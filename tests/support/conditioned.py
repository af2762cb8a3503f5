"""Pipelines that start from an image or a video: the parts of the others, and transformers with more channels."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from tests.support import models

VIDEO = torch.linspace(0, 1, 9 * 3 * 32 * 48).reshape(9, 3, 32, 48)
"""Frames of a video, from 0 to 1."""


def with_parts(kind: str, pipe: Any, **changes: Any) -> Any:
    """Another pipeline of the parts of this one."""
    import diffusers

    cls = getattr(diffusers, kind)
    parts = {**pipe.components, **changes}
    return cls(**{name: parts[name] for name in inspect.signature(cls.__init__).parameters if name in parts})


def build_ltx_image() -> Any:
    return with_parts("LTXImageToVideoPipeline", models.build_ltx_pipeline())


def build_cogvideox_image() -> Any:
    return with_parts("CogVideoXImageToVideoPipeline", models.build_cogvideox_pipeline(in_channels=8))


def build_cogvideox_video() -> Any:
    return with_parts("CogVideoXVideoToVideoPipeline", models.build_cogvideox_pipeline())


def build_cogvideox_control() -> Any:
    return with_parts("CogVideoXFunControlPipeline", models.build_cogvideox_pipeline(in_channels=8))


def build_skyreels_image() -> Any:
    return with_parts(
        "HunyuanSkyreelsImageToVideoPipeline", models.build_hunyuan_pipeline(in_channels=8, guidance_embeds=False)
    )


def build_hunyuan_image() -> Any:
    """It takes embeddings of prompt and image: its own text encoder sees images."""
    pipe = models.build_hunyuan_pipeline(in_channels=9, guidance_embeds=False, image_condition_type="latent_concat")
    return with_parts("HunyuanVideoImageToVideoPipeline", pipe, text_encoder=None, image_processor=None)


def build_hunyuan_token_replace() -> Any:
    """Likewise; the tokens of its first frame are modulated as those of an image."""
    pipe = models.build_hunyuan_pipeline(in_channels=4, image_condition_type="token_replace")
    return with_parts("HunyuanVideoImageToVideoPipeline", pipe, text_encoder=None, image_processor=None)


def build_wan_video() -> Any:
    return with_parts("WanVideoToVideoPipeline", models.build_wan_pipeline())


_IMAGE = torch.full((1, 3, 32, 48), 0.5)
_COGVIDEOX: dict[str, Any] = {"max_sequence_length": 16}
_TEXT: dict[str, Any] = {
    "prompt": None,
    "prompt_embeds": torch.linspace(-1, 1, 7 * 16).reshape(1, 7, 16),
    "pooled_prompt_embeds": torch.linspace(-1, 1, 16)[None],
    "prompt_attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0, 0]]),
}
_NEGATIVE: dict[str, Any] = {
    **{f"negative_{name}": -value for name, value in list(_TEXT.items())[1:3]},
    "negative_prompt_attention_mask": torch.tensor([[1, 1, 0, 0, 0, 0, 0]]),
    "true_cfg_scale": 3.0,
}
"""A second branch of guidance."""
_LTX: dict[str, Any] = {"height": 64, "width": 96, "num_frames": 17, "negative_prompt": "dog"}

CONDITIONED: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "LTXImageToVideo": (build_ltx_image, {**_LTX, "image": torch.full((1, 3, 64, 96), 0.5)}),
    "CogVideoXImageToVideo": (build_cogvideox_image, {**_COGVIDEOX, "image": _IMAGE}),
    "CogVideoXVideoToVideo": (build_cogvideox_video, {**_COGVIDEOX, "video": VIDEO[None], "num_frames": None}),
    "CogVideoXFunControl": (build_cogvideox_control, {**_COGVIDEOX, "control_video": VIDEO[None], "num_frames": None}),
    "HunyuanSkyreelsImageToVideo": (build_skyreels_image, {**_TEXT, **_NEGATIVE, "image": _IMAGE}),
    "HunyuanVideoImageToVideo": (build_hunyuan_image, {**_TEXT, **_NEGATIVE, "image": _IMAGE}),
    "WanVideoToVideo": (build_wan_video, {"video": VIDEO[None], "num_frames": None}),
}
"""A pipeline of each kind with random weights, and what `run` needs beside the usual."""

TOKEN_REPLACE: tuple[Callable[[], Any], dict[str, Any]] = (build_hunyuan_token_replace, {**_TEXT, "image": _IMAGE})
