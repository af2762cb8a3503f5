"""Allegro: self attention over the video, cross attention to the text with a mask over its padding."""

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
    frames, height, width = arguments["hidden_states"].shape[2:]
    patch, patch_time = config["patch_size"], config["patch_size_t"]
    return TokenLayout((frames // patch_time, height // patch, width // patch))


def _geometry(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    pixels = 2 ** (len(vae.get("block_out_channels", (128, 256, 512, 512))) - 1) * transformer["patch_size"]
    frames = int(vae.get("temporal_compression_ratio", 4)) * transformer["patch_size_t"]
    return Geometry((pixels, pixels), frames, None)


ALLEGRO = ModelFamily(
    name="Allegro",
    transformer="AllegroTransformer3DModel",
    pipelines=frozenset({"AllegroPipeline"}),
    attentions=_attentions,
    token_layout=_token_layout,
    geometry=_geometry,
    stack=BlockStack(lists=("transformer_blocks",), modulation=2, rotary=5, rotary_axis=1),
    roles=(Role.SELF, Role.CROSS),
    text_mask="encoder_attention_mask",
    block_signals={Signal.TIME_PROJECTION: 2},
    shared_by_sequence=True,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [ALLEGRO]
