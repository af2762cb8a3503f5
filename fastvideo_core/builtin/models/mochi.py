"""Mochi: video and text in one sequence; attention is called once for each batch entry, with its real text alone."""

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


def _attentions(transformer: torch.nn.Module) -> Iterator[AttentionSite]:
    for block in cast("torch.nn.ModuleList", transformer.transformer_blocks):
        yield AttentionSite(cast("torch.nn.Module", block.attn1), Role.JOINT, calls=None)


def _token_layout(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> TokenLayout:
    frames, height, width = arguments["hidden_states"].shape[2:]
    patch = config["patch_size"]
    return TokenLayout(
        (frames, height // patch, width // patch), text_after=arguments["encoder_hidden_states"].shape[1]
    )


def _geometry(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    pixels = transformer["patch_size"] * math.prod(vae.get("spatial_expansions", (2, 2, 2)))
    return Geometry((pixels, pixels), math.prod(vae.get("temporal_expansions", (1, 2, 3))), None)


MOCHI = ModelFamily(
    name="Mochi",
    transformer="MochiTransformer3DModel",
    pipelines=frozenset({"MochiPipeline"}),
    attentions=_attentions,
    token_layout=_token_layout,
    geometry=_geometry,
    stack=BlockStack(lists=("transformer_blocks",), modulation=2, rotary=4, rotary_axis=0, returns_text=True),
    roles=(Role.JOINT,),
    text_mask="encoder_attention_mask",
    block_signals={Signal.TIME_EMBEDDING: 2},
    shared_by_sequence=True,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [MOCHI]
