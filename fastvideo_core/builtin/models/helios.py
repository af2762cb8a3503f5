"""Helios: a video made in chunks, each of which attends to the history that was made before it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from fastvideo_core.contract.attention import Role, TokenLayout
from fastvideo_core.contract.caching import Signal
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.model import AttentionSite, BlockStack, Geometry, ModelFamily

if TYPE_CHECKING:
    import torch

api_version = API_VERSION

_CHUNK = 9
"""Frames of latents that its pipelines make at a time."""

_HISTORY = {"short": 1, "mid": 2, "long": 4}
"""How much coarser than the video each part of the history is, along every axis."""


def _attentions(transformer: torch.nn.Module) -> Iterator[AttentionSite]:
    for block in cast("torch.nn.ModuleList", transformer.blocks):
        yield AttentionSite(cast("torch.nn.Module", block.attn1), Role.SELF)
        yield AttentionSite(cast("torch.nn.Module", block.attn2), Role.CROSS)


def _token_layout(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> TokenLayout:
    """The history has no place in the grid: its tokens are of other sizes, and the text is not shown to them."""
    patch = config["patch_size"]
    latent_size = arguments["hidden_states"].shape[2:]
    time, height, width = (size // one for size, one in zip(latent_size, patch, strict=True))
    history = 0
    for name, coarser in _HISTORY.items():
        latents = arguments.get(f"latents_history_{name}")
        if latents is not None:
            sizes = zip(latents.shape[2:], patch, strict=True)
            history += math.prod(-(-size // (coarser * one)) for size, one in sizes)
    return TokenLayout((time, height, width), text_before=history)


def _geometry(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    pixels, frames = vae.get("scale_factor_spatial", 8), vae.get("scale_factor_temporal", 4)
    patch_time, patch_height, patch_width = transformer["patch_size"]
    return Geometry((pixels * patch_height, pixels * patch_width), frames * patch_time, None, latents_at_once=_CHUNK)


HELIOS = ModelFamily(
    name="Helios",
    transformer="HeliosTransformer3DModel",
    pipelines=frozenset({"HeliosPipeline"}),
    attentions=_attentions,
    token_layout=_token_layout,
    geometry=_geometry,
    stack=BlockStack(lists=("blocks",), modulation=2, rotary=3, rotary_axis=1, video_tokens=4),
    roles=(Role.SELF, Role.CROSS),
    time_signals={
        Signal.TIME_EMBEDDING: ("condition_embedder.timesteps_proj", "condition_embedder.time_embedder"),
    },
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [HELIOS]
