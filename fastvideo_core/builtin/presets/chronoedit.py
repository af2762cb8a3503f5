"""The preset of ChronoEdit, from diffusers' example: https://huggingface.co/nvidia/ChronoEdit-14B-Diffusers."""

from __future__ import annotations

from fastvideo_core.builtin.presets.parts import CLIP_H, UMT5_XXL, WAN_VAE
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Size, frames and guidance as diffusers' example has them: the last frame is the edited image."""
    return [
        ModelPreset(
            "nvidia/ChronoEdit-14B-Diffusers",
            "nvidia/ChronoEdit-14B-Diffusers",
            {
                "height": 720,
                "width": 1280,
                "num_frames": 5,
                "fps": 16,
                "num_inference_steps": 50,
                "guidance_scale": 5.0,
            },
            "ChronoEdit, edits an image by a short video, 14 billion parameters",
            transformer="ChronoEditTransformer3DModel",
            task="image to video",
            parameters={
                "transformer": 16_394_878_784,
                "text_encoder": UMT5_XXL,
                "vae": WAN_VAE,
                "image_encoder": CLIP_H,
            },
        ),
    ]
