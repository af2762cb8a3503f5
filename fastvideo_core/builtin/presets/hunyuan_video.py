"""Presets of HunyuanVideo."""

from __future__ import annotations

from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Size, steps and embedded guidance as the model card of the checkpoint uses them."""
    return [
        ModelPreset(
            "hunyuanvideo-community/HunyuanVideo",
            "hunyuanvideo-community/HunyuanVideo",
            {
                "height": 720,
                "width": 1280,
                "num_frames": 129,
                "fps": 24,
                "num_inference_steps": 50,
                "guidance_scale": 6.0,
            },
            "HunyuanVideo text-to-video, 13 billion parameters",
        ),
    ]
