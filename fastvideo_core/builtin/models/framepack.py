"""Framepack: HunyuanVideo's blocks on packed frames of before, the next frames, and image and text, in one sequence.

A video is made in sections, each in a loop of its own: a run of the core is a section.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastvideo_core.builtin.models.hunyuan_video import HUNYUAN_VIDEO
from fastvideo_core.contract.attention import TokenLayout
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.model import ModelFamily

api_version = API_VERSION

_PACKED = {"latents_clean": (1, 2, 2), "latents_history_2x": (2, 4, 4), "latents_history_4x": (4, 8, 8)}
"""Latents of the frames of before, and how many of them become one token: the further back, the more."""


def _token_layout(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> TokenLayout:
    frames, height, width = arguments["hidden_states"].shape[2:]
    patch, patch_time = config["patch_size"], config["patch_size_t"]
    before = [
        math.prod(-(-size // packed) for size, packed in zip(arguments[name].shape[2:], sizes, strict=True))
        for name, sizes in _PACKED.items()
        if arguments.get(name) is not None
    ]
    real = arguments["encoder_attention_mask"].sum(dim=1).int() + arguments["image_embeds"].shape[1]
    lengths = tuple(real.tolist())  # it waits for the device once a pass, as the model itself does
    padded = arguments["encoder_attention_mask"].shape[1] + arguments["image_embeds"].shape[1]
    return TokenLayout(
        (frames // patch_time, height // patch, width // patch),
        text_before=sum(before),
        text_after=padded if len(lengths) > 1 else lengths[0],  # the padding of a single text is not there at all
        text_lengths=lengths,
        fixed=True,
    )


FRAMEPACK = replace(
    HUNYUAN_VIDEO,
    name="Framepack",
    transformer="HunyuanVideoFramepackTransformer3DModel",
    pipelines=frozenset({"HunyuanVideoFramepackPipeline"}),
    image_pipelines=frozenset({"HunyuanVideoFramepackPipeline"}),
    token_layout=_token_layout,
    text_mask=None,
    shared_by_sequence=False,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [FRAMEPACK]
