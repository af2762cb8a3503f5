"""SkyReels-V2: blocks as Wan's; with diffusion forcing each frame has a timestep of its own."""

from __future__ import annotations

from fastvideo_core.builtin.models.wan import TIME_SIGNALS, attentions, geometry, token_layout
from fastvideo_core.contract.attention import Role
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.model import BlockStack, ModelFamily

api_version = API_VERSION

_FROM_AN_IMAGE = frozenset({"SkyReelsV2ImageToVideoPipeline", "SkyReelsV2DiffusionForcingImageToVideoPipeline"})

SKYREELS_V2 = ModelFamily(
    name="SkyReels-V2",
    transformer="SkyReelsV2Transformer3DModel",
    pipelines=_FROM_AN_IMAGE | {"SkyReelsV2Pipeline", "SkyReelsV2DiffusionForcingPipeline"},
    image_pipelines=_FROM_AN_IMAGE,
    attentions=attentions,
    token_layout=token_layout,
    geometry=geometry,
    # With diffusion forcing the modulation is (batch, 6, tokens, channels), not (batch, tokens, 6, channels) as Wan's.
    stack=BlockStack(lists=("blocks",), modulation=2, rotary=3, rotary_axis=1, modulation_axis=2),
    roles=(Role.SELF, Role.CROSS),
    # The projection is without what the 1.3B model adds to it for the frame rate, the same in every step.
    time_signals=TIME_SIGNALS,
    shared_by_sequence=True,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [SKYREELS_V2]
