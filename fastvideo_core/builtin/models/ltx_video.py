"""LTX-Video: self attention over the video, cross attention to the text with a mask over its padding."""

from __future__ import annotations

import weakref
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


def _attentions(transformer: torch.nn.Module) -> Iterator[AttentionSite]:
    for block in cast("torch.nn.ModuleList", transformer.transformer_blocks):
        yield AttentionSite(cast("torch.nn.Module", block.attn1), Role.SELF)
        yield AttentionSite(cast("torch.nn.Module", block.attn2), Role.CROSS)


def _token_layout(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> TokenLayout:
    """The pipeline packs latents into tokens itself and tells the grid beside them, or where each token stands."""
    coordinates = arguments.get("video_coords")
    if coordinates is None:
        return TokenLayout((arguments["num_frames"], arguments["height"], arguments["width"]))
    return _LATEST.layout(coordinates)


class _Latest:
    """The layout that the latest coordinates tell: those of a run stay the same, and reading waits for the device."""

    def __init__(self) -> None:
        self._known: tuple[weakref.ref[torch.Tensor], TokenLayout] | None = None

    def layout(self, coordinates: torch.Tensor) -> TokenLayout:
        known = self._known
        if known is None or known[0]() is not coordinates:
            self._known = known = weakref.ref(coordinates), _layout_of(coordinates)
        return known[1]


_LATEST = _Latest()


def _layout_of(coordinates: torch.Tensor) -> TokenLayout:
    """The video starts at second 0; what stands before or behind its frames are others that condition it.

    Args:
        coordinates: (batch, 3, tokens): second, and pixels from the top and from the left.
    """
    time, top, left = coordinates[0].cpu()
    tokens = len(time)
    corners = ((top == top[0]) & (left == left[0])).nonzero().flatten().tolist()
    per_frame = corners[1] if len(corners) > 1 else tokens
    row = (top != top[0]).nonzero().flatten().tolist()
    width = row[0] if row else per_frame
    starts = time[corners].tolist()
    whole = corners == list(range(0, tokens, per_frame)) and tokens % per_frame == per_frame % width == 0
    if not whole or 0.0 not in starts:
        raise UnsupportedModelError(
            f"the coordinates that this pipeline gives its {tokens} tokens are not those of frames of one size, one of "
            f"them at second 0, so {LTX_VIDEO.name} has no grid to tell of; run it without fastvideo-core"
        )
    first = end = starts.index(0.0)
    while end + 1 < len(starts) and starts[end + 1] > starts[end]:
        end += 1
    frames = end + 1 - first
    return TokenLayout(
        (frames, per_frame // width, width),
        text_before=first * per_frame,
        text_after=(len(starts) - end - 1) * per_frame,
    )


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
    shared_by_sequence=True,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [LTX_VIDEO]
