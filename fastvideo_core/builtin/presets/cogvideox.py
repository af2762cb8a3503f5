"""Presets of CogVideoX."""

from __future__ import annotations

from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Sizes, steps and guidance as the model cards of the checkpoints use them."""
    older = {
        "height": 480,
        "width": 720,
        "num_frames": 49,
        "fps": 8,
        "num_inference_steps": 50,
        "guidance_scale": 6.0,
    }
    newer = {**older, "height": 768, "width": 1360, "num_frames": 81, "fps": 16}
    return [
        ModelPreset("THUDM/CogVideoX-2b", "THUDM/CogVideoX-2b", older, "CogVideoX text-to-video, 2 billion parameters"),
        ModelPreset("THUDM/CogVideoX-5b", "THUDM/CogVideoX-5b", older, "CogVideoX text-to-video, 5 billion parameters"),
        ModelPreset(
            "THUDM/CogVideoX1.5-5B",
            "THUDM/CogVideoX1.5-5B",
            newer,
            "CogVideoX 1.5 text-to-video, 5 billion parameters",
        ),
    ]
