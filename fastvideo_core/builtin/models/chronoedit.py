"""ChronoEdit: edits an image by a short video between before and after, with blocks as Wan's."""

from __future__ import annotations

from fastvideo_core.builtin.models.wan import TIME_SIGNALS, attentions, geometry, token_layout
from fastvideo_core.contract.attention import Role
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.model import BlockStack, ModelFamily

api_version = API_VERSION

CHRONOEDIT = ModelFamily(
    name="ChronoEdit",
    transformer="ChronoEditTransformer3DModel",
    attentions=attentions,
    token_layout=token_layout,
    geometry=geometry,
    stack=BlockStack(lists=("blocks",), modulation=2, rotary=3, rotary_axis=1),
    roles=(Role.SELF, Role.CROSS),
    time_signals=TIME_SIGNALS,
    shared_by_sequence=True,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [CHRONOEDIT]
