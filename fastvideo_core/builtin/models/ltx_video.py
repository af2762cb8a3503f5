"""LTX-Video: self attention over the video, cross attention to the text with a mask over its padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from fastvideo_core.contract.attention import Role, TokenLayout
from fastvideo_core.contract.caching import Signal
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.model import AttentionSite, BlockStack, Geometry, ModelFamily

if TYPE_CHECKING:
    import torch

api_version = API_VERSION


def _attentions(transformer: torch.nn.Module) -> Iterator[AttentionSite]:
    for block in cast("torch.nn.ModuleList", transformer.transformer_blocks):
        yield AttentionSite(cast("torch.nn.Module", block.attn1), Role.SELF)
        yield AttentionSite(cast("torch.nn.Module", block.attn2), Role.CROSS)


def _token_layout(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> TokenLayout:
    """The pipeline packs latents into tokens itself and tells the grid beside them."""
    return TokenLayout((arguments["num_frames"], arguments["height"], arguments["width"]))


def _geometry(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    halvings = sum(vae.get("spatio_temporal_scaling", (True, True, True, False)))
    pixels = vae.get("patch_size", 4) * 2**halvings * transformer.get("patch_size", 1)
    frames = vae.get("patch_size_t", 1) * 2**halvings * transformer.get("patch_size_t", 1)
    return Geometry((pixels, pixels), frames, None)


_TIME_EMBEDDING = ("time_embed.emb.time_proj", "time_embed.emb.timestep_embedder")

LTX_VIDEO = ModelFamily(
    name="LTX-Video",
    transformer="LTXVideoTransformer3DModel",
    pipelines=frozenset({"LTXPipeline", "LTXImageToVideoPipeline"}),
    image_pipelines=frozenset({"LTXImageToVideoPipeline"}),
    attentions=_attentions,
    token_layout=_token_layout,
    geometry=_geometry,
    stack=BlockStack(lists=("transformer_blocks",), modulation=2, rotary=3, rotary_axis=1, modulation_per_token=3),
    roles=(Role.SELF, Role.CROSS),
    frame_rate_argument="frame_rate",
    text_mask="encoder_attention_mask",
    time_signals={
        Signal.TIME_EMBEDDING: _TIME_EMBEDDING,
        Signal.TIME_PROJECTION: (*_TIME_EMBEDDING, "time_embed.silu", "time_embed.linear"),
    },
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [LTX_VIDEO]
