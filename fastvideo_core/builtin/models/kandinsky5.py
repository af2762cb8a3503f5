"""Kandinsky 5: self attention over the video, cross attention to a text that blocks of its own have refined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from fastvideo_core.contract.attention import Role, TokenLayout
from fastvideo_core.contract.caching import Signal
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.model import AttentionSite, BlockStack, Geometry, ModelFamily
from fastvideo_core.errors import UnsupportedModelError

if TYPE_CHECKING:
    import torch

api_version = API_VERSION

_POSITIONS = 128
"""Tokens along an axis that the rotary embedding has frequencies for, whatever the configuration says."""


def _attentions(transformer: torch.nn.Module) -> Iterator[AttentionSite]:
    """Those of the video's blocks; the text's own blocks run before them, and stay with diffusers."""
    _refuse_sparse(cast("Mapping[str, Any]", transformer.config))
    for block in cast("torch.nn.ModuleList", transformer.visual_transformer_blocks):
        yield AttentionSite(cast("torch.nn.Module", block.self_attention), Role.SELF)
        yield AttentionSite(cast("torch.nn.Module", block.cross_attention), Role.CROSS)


def _refuse_sparse(config: Mapping[str, Any]) -> None:
    """The sparse checkpoints mask blocks of keys anew in every layer, for torch's flex attention alone."""
    kind = config.get("attention_type", "regular")
    if kind != "regular":
        raise UnsupportedModelError(
            f"this Kandinsky 5 has sparse attention of its own (attention_type {kind!r}), with a mask that each layer "
            "makes from its queries and keys; run it with diffusers alone, or take a checkpoint whose attention_type "
            "is 'regular'"
        )


def _token_layout(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> TokenLayout:
    """Its latents have their channels last."""
    latent_size = arguments["hidden_states"].shape[1:4]
    time, height, width = (size // patch for size, patch in zip(latent_size, config["patch_size"], strict=True))
    return TokenLayout((time, height, width))


def _geometry(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    _refuse_sparse(transformer)
    patch_time, patch_height, patch_width = transformer["patch_size"]
    pixels, frames = vae.get("spatial_compression_ratio", 8), vae.get("temporal_compression_ratio", 4)
    return Geometry((pixels * patch_height, pixels * patch_width), frames * patch_time, _POSITIONS)


def _heads(config: Mapping[str, Any], role: Role) -> tuple[int, int]:
    head_dim = sum(config["axes_dims"])
    return config["model_dim"] // head_dim, head_dim


KANDINSKY5 = ModelFamily(
    name="Kandinsky 5",
    transformer="Kandinsky5Transformer3DModel",
    pipelines=frozenset({"Kandinsky5T2VPipeline", "Kandinsky5I2VPipeline"}),
    image_pipelines=frozenset({"Kandinsky5I2VPipeline"}),
    attentions=_attentions,
    token_layout=_token_layout,
    geometry=_geometry,
    stack=BlockStack(lists=("visual_transformer_blocks",), modulation=2, rotary=3, rotary_axis=1),
    roles=(Role.SELF, Role.CROSS),
    time_signals={Signal.TIME_EMBEDDING: ("time_embeddings",)},
    heads=_heads,
    shared_by_sequence=True,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [KANDINSKY5]
