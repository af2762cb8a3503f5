"""Wan: self attention over the video, cross attention to the text and, in image-to-video Wan 2.1, to the image."""

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


def attentions(transformer: torch.nn.Module) -> Iterator[AttentionSite]:
    """Self and cross attention of each block, of Wan and of what is made after it."""
    return attentions_of(cast("torch.nn.ModuleList", transformer.blocks))


def attentions_of(blocks: torch.nn.ModuleList) -> Iterator[AttentionSite]:
    """Likewise of a list of such blocks."""
    for block in blocks:
        cross = cast("torch.nn.Module", block.attn2)
        yield AttentionSite(cast("torch.nn.Module", block.attn1), Role.SELF)
        yield AttentionSite(cross, Role.CROSS, calls=1 if cross.add_k_proj is None else 2)


def token_layout(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> TokenLayout:
    """The grid of the latents, in patches."""
    latent_size = arguments["hidden_states"].shape[2:]
    time, height, width = (size // patch for size, patch in zip(latent_size, config["patch_size"], strict=True))
    return TokenLayout((time, height, width))


def geometry(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    """The same grid from pixels, by the strides of autoencoder and patches."""
    stride = vae.get("scale_factor_spatial", 8)
    _, patch_height, patch_width = transformer["patch_size"]
    # WanPipeline itself insists on multiples of 16, whatever the patch.
    height, width = (math.lcm(stride * patch, 16) for patch in (patch_height, patch_width))
    return Geometry((height, width), vae.get("scale_factor_temporal", 4), transformer.get("rope_max_seq_len", 1024))


_TIME_EMBEDDING = ("condition_embedder.timesteps_proj", "condition_embedder.time_embedder")
TIME_SIGNALS: Mapping[Signal, tuple[str, ...]] = {
    Signal.TIME_EMBEDDING: _TIME_EMBEDDING,
    Signal.TIME_PROJECTION: (*_TIME_EMBEDDING, "condition_embedder.act_fn", "condition_embedder.time_proj"),
}

WAN = ModelFamily(
    name="Wan",
    transformer="WanTransformer3DModel",
    pipelines=frozenset({"WanPipeline", "WanImageToVideoPipeline"}),
    image_pipelines=frozenset({"WanImageToVideoPipeline"}),
    attentions=attentions,
    token_layout=token_layout,
    geometry=geometry,
    stack=BlockStack(lists=("blocks",), modulation=2, rotary=3, rotary_axis=1),
    roles=(Role.SELF, Role.CROSS),
    time_signals=TIME_SIGNALS,
    shared_by_sequence=True,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [WAN]
