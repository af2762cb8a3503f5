"""HunyuanVideo-1.5: video, then image and text tokens in one sequence, with a mask over these tokens' padding."""

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

_TEXT = ("image_embeds", "encoder_hidden_states_2", "encoder_hidden_states")
"""What becomes text tokens: of the image, of glyphs, and of the prompt."""


def _attentions(transformer: torch.nn.Module) -> Iterator[AttentionSite]:
    """Those of the blocks; the text refiner's stays with diffusers."""
    for block in cast("torch.nn.ModuleList", transformer.transformer_blocks):
        yield AttentionSite(cast("torch.nn.Module", block.attn), Role.JOINT)


def _token_layout(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> TokenLayout:
    frames, height, width = arguments["hidden_states"].shape[2:]
    patch, patch_time = config["patch_size"], config["patch_size_t"]
    return TokenLayout(
        (frames // patch_time, height // patch, width // patch),
        text_after=sum(arguments[name].shape[1] for name in _TEXT),
        text_lengths=_real_text(arguments),
    )


def _real_text(arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """Text tokens of each batch entry that are not padding; an image of zeros is none, as in text-to-video.

    The model sorts each entry's text, real tokens first, so that these numbers are all there is to its mask.
    """
    image = arguments["image_embeds"]
    real = (image != 0).any() * image.shape[1]
    for mask in ("encoder_attention_mask", "encoder_attention_mask_2"):
        real = real + arguments[mask].bool().sum(dim=1)
    return tuple(real.tolist())  # it waits for the device once a pass; the model itself does so several times


def _geometry(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    pixels = vae.get("spatial_compression_ratio", 16) * transformer["patch_size"]
    return Geometry((pixels, pixels), vae.get("temporal_compression_ratio", 4) * transformer["patch_size_t"], None)


HUNYUAN_VIDEO_15 = ModelFamily(
    name="HunyuanVideo-1.5",
    transformer="HunyuanVideo15Transformer3DModel",
    pipelines=frozenset({"HunyuanVideo15Pipeline", "HunyuanVideo15ImageToVideoPipeline"}),
    image_pipelines=frozenset({"HunyuanVideo15ImageToVideoPipeline"}),
    attentions=_attentions,
    token_layout=_token_layout,
    geometry=_geometry,
    stack=BlockStack(lists=("transformer_blocks",), modulation=2, rotary=4, rotary_axis=0, returns_text=True),
    roles=(Role.JOINT,),
    block_signals={Signal.TIME_EMBEDDING: 2},
    shared_by_sequence=True,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [HUNYUAN_VIDEO_15]
