"""Cosmos 1, 2 and 2.5: self attention over the video, cross attention to the text and, where it has one, an image."""

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
    """The blocks of a control network, which is a model of its own, stay with diffusers."""
    for block in cast("torch.nn.ModuleList", transformer.transformer_blocks):
        yield AttentionSite(cast("torch.nn.Module", block.attn1), Role.SELF)
        calls = 2 if block.img_context else 1
        yield AttentionSite(cast("torch.nn.Module", block.attn2), Role.CROSS, calls)


def _token_layout(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> TokenLayout:
    latent_size = arguments["hidden_states"].shape[2:]
    time, height, width = (size // patch for size, patch in zip(latent_size, config["patch_size"], strict=True))
    return TokenLayout((time, height, width))


def _geometry(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    """Cosmos 1 has an autoencoder of its own, the later ones have Wan's."""
    patch_time, patch_height, patch_width = transformer["patch_size"]
    halvings = vae.get("temperal_downsample", (False, True, True))
    pixels = vae.get("spatial_compression_ratio", 2 ** len(halvings))
    frames = vae.get("temporal_compression_ratio", 2 ** sum(halvings))
    longest = [size // patch for size, patch in zip(transformer["max_size"], transformer["patch_size"], strict=True)]
    # The learned position embedding has a table for each axis, the rotary one a table for all.
    most = min(longest) if transformer.get("extra_pos_embed_type") else max(longest)
    return Geometry((pixels * patch_height, pixels * patch_width), frames * patch_time, most)


COSMOS = ModelFamily(
    name="Cosmos",
    transformer="CosmosTransformer3DModel",
    pipelines=frozenset({"CosmosTextToWorldPipeline", "Cosmos2_5_PredictBasePipeline"}),
    attentions=_attentions,
    token_layout=_token_layout,
    geometry=_geometry,
    stack=BlockStack(
        lists=("transformer_blocks",),
        modulation=2,
        modulation_per_token=3,
        more_modulation=(3, 5, 7),
        rotary=4,
        rotary_axis=0,
    ),
    roles=(Role.SELF, Role.CROSS),
    time_signals={Signal.TIME_EMBEDDING: ("time_embed.time_proj", "time_embed.t_embedder")},
    shared_by_sequence=True,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [COSMOS]
