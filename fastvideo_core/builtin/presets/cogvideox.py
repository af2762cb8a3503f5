"""Presets of CogVideoX, from the model cards of its checkpoints at https://huggingface.co/THUDM."""

from __future__ import annotations

from typing import Any

from fastvideo_core.builtin.presets.parts import T5_XXL
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION

_OLDER = {"height": 480, "width": 720, "num_frames": 49, "fps": 8, "num_inference_steps": 50, "guidance_scale": 6.0}
_NEWER = {**_OLDER, "height": 768, "width": 1360, "num_frames": 81, "fps": 16}


def _preset(name: str, description: str, sampling: dict[str, Any], transformer: int, task: str) -> ModelPreset:
    return ModelPreset(
        f"THUDM/{name}",
        f"THUDM/{name}",
        dict(sampling),
        description,
        transformer="CogVideoXTransformer3DModel",
        task=task,
        parameters={"transformer": transformer, "text_encoder": T5_XXL, "vae": 215_583_907},
    )


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Sizes, steps and guidance as the model cards of the checkpoints use them."""
    text, image = "text to video", "image to video"
    return [
        _preset("CogVideoX-2b", "CogVideoX text-to-video, 2 billion parameters", _OLDER, 1_693_783_872, text),
        _preset("CogVideoX-5b", "CogVideoX text-to-video, 5 billion parameters", _OLDER, 5_570_283_072, text),
        _preset("CogVideoX-5b-I2V", "CogVideoX image-to-video, 5 billion parameters", _OLDER, 5_570_479_680, image),
        _preset("CogVideoX1.5-5B", "CogVideoX 1.5 text-to-video, 5 billion parameters", _NEWER, 5_570_676_352, text),
        _preset(
            "CogVideoX1.5-5B-I2V", "CogVideoX 1.5 image-to-video, 5 billion parameters", _NEWER, 5_571_594_880, image
        ),
    ]
