"""Presets of LTX-Video."""

from __future__ import annotations

from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Size, steps and guidance as diffusers' example for the checkpoint uses them."""
    return [
        ModelPreset(
            "Lightricks/LTX-Video",
            "Lightricks/LTX-Video",
            {
                "height": 480,
                "width": 704,
                "num_frames": 161,
                "fps": 24,
                "num_inference_steps": 50,
                "guidance_scale": 3.0,
            },
            "LTX-Video text-to-video, 2 billion parameters",
        ),
    ]
