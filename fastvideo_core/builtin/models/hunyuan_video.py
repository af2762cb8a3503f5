"""HunyuanVideo: video and text in one sequence, in two lists of blocks, with a mask over the text's padding."""

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
    """Those of the two block lists; the text refiner's stays with diffusers."""
    for blocks in (transformer.transformer_blocks, transformer.single_transformer_blocks):
        for block in cast("torch.nn.ModuleList", blocks):
            yield AttentionSite(cast("torch.nn.Module", block.attn), Role.JOINT)


def _token_layout(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> TokenLayout:
    frames, height, width = arguments["hidden_states"].shape[2:]
    patch, patch_time = config["patch_size"], config["patch_size_t"]
    return TokenLayout(
        (frames // patch_time, height // patch, width // patch),
        text_after=arguments["encoder_hidden_states"].shape[1],
        fixed=config.get("image_condition_type")
        == "token_replace",  # the first frame's tokens have a time of their own
    )


def _geometry(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    pixels = vae.get("spatial_compression_ratio", 8) * transformer["patch_size"]
    return Geometry((pixels, pixels), vae.get("temporal_compression_ratio", 4) * transformer["patch_size_t"], None)


HUNYUAN_VIDEO = ModelFamily(
    name="HunyuanVideo",
    transformer="HunyuanVideoTransformer3DModel",
    pipelines=frozenset(
        {"HunyuanVideoPipeline", "HunyuanVideoImageToVideoPipeline", "HunyuanSkyreelsImageToVideoPipeline"}
    ),
    image_pipelines=frozenset({"HunyuanVideoImageToVideoPipeline", "HunyuanSkyreelsImageToVideoPipeline"}),
    attentions=_attentions,
    token_layout=_token_layout,
    geometry=_geometry,
    stack=BlockStack(
        lists=("transformer_blocks", "single_transformer_blocks"),
        modulation=2,
        rotary=4,
        rotary_axis=0,
        returns_text=True,
        leading=6,
    ),
    roles=(Role.JOINT,),
    guidance_is_built_in=True,
    text_mask="encoder_attention_mask",
    block_signals={Signal.TIME_EMBEDDING: 2},
    shared_by_sequence=True,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [HUNYUAN_VIDEO]
