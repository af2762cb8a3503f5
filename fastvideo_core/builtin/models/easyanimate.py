"""EasyAnimate: text and video in one sequence, text first; both guidance branches in one batch."""

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
        yield AttentionSite(cast("torch.nn.Module", block.attn1), Role.JOINT)


def _token_layout(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> TokenLayout:
    """The texts of its two encoders stand one behind the other."""
    frames, height, width = arguments["hidden_states"].shape[2:]
    texts = [arguments.get(name) for name in ("encoder_hidden_states", "encoder_hidden_states_t5")]
    return TokenLayout(
        (frames, height // config["patch_size"], width // config["patch_size"]),
        text_before=sum(text.shape[1] for text in texts if text is not None),
    )


def _geometry(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    blocks = len(vae["block_out_channels"])
    pixels = 2 ** (blocks - 1) * transformer["patch_size"]
    return Geometry((pixels, pixels), 2 ** (blocks - 2), None)


EASYANIMATE = ModelFamily(
    name="EasyAnimate",
    transformer="EasyAnimateTransformer3DModel",
    pipelines=frozenset({"EasyAnimatePipeline"}),
    attentions=_attentions,
    token_layout=_token_layout,
    geometry=_geometry,
    stack=BlockStack(lists=("transformer_blocks",), modulation=2, rotary=3, rotary_axis=0, returns_text=True),
    roles=(Role.JOINT,),
    time_signals={Signal.TIME_EMBEDDING: ("time_proj", "time_embedding")},
    shared_by_sequence=True,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [EASYANIMATE]
