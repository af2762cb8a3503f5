"""Wan VACE: Wan's blocks, and others like them that make hints of a control video for some of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from fastvideo_core.builtin.models.wan import TIME_SIGNALS, attentions_of, geometry, token_layout
from fastvideo_core.contract.attention import Role
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.model import AttentionSite, BlockStack, HintBlocks, ModelFamily

if TYPE_CHECKING:
    import torch

api_version = API_VERSION


def _attentions(transformer: torch.nn.Module) -> Iterator[AttentionSite]:
    yield from attentions_of(cast("torch.nn.ModuleList", transformer.vace_blocks))
    yield from attentions_of(cast("torch.nn.ModuleList", transformer.blocks))


WAN_VACE = ModelFamily(
    name="Wan VACE",
    transformer="WanVACETransformer3DModel",
    pipelines=frozenset({"WanVACEPipeline"}),
    attentions=_attentions,
    token_layout=token_layout,
    geometry=geometry,
    stack=BlockStack(
        lists=("blocks",),
        modulation=2,
        rotary=3,
        rotary_axis=1,
        hints=HintBlocks(list="vace_blocks", own=2, modulation=3, rotary=4),
    ),
    roles=(Role.SELF, Role.CROSS),
    time_signals=TIME_SIGNALS,
    shared_by_sequence=True,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [WAN_VACE]
