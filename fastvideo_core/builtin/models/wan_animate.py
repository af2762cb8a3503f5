"""Wan Animate: Wan's blocks, with adapters between them that attend to a face, frame by frame.

Their attention, of a frame's tokens to five of the face, stays with diffusers: it is no work to speak of, and its
queries are not the tokens of a video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastvideo_core.builtin.models import wan
from fastvideo_core.contract.attention import Role
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.model import BlockStack, Geometry, ModelFamily

api_version = API_VERSION


def _geometry(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    """Of a segment of the video, behind the latents of the reference image."""
    return replace(wan.geometry(transformer, vae), extra_latents=1)


WAN_ANIMATE = ModelFamily(
    name="Wan Animate",
    transformer="WanAnimateTransformer3DModel",
    attentions=wan.attentions,
    token_layout=wan.token_layout,
    geometry=_geometry,
    stack=BlockStack(lists=("blocks",), modulation=2, rotary=3, rotary_axis=1, adapters="face_adapter"),
    roles=(Role.SELF, Role.CROSS),
    time_signals=wan.TIME_SIGNALS,
    shared_by_sequence=True,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [WAN_ANIMATE]
