"""Presets of Wan."""

from __future__ import annotations

from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION

NEGATIVE_PROMPT = (
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall "
    "gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, "
    "poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three "
    "legs, many people in the background, walking backwards"
)
"""What the model cards of the three checkpoints give as negative prompt."""


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Sizes, steps, guidance and negative prompt as the model cards of the checkpoints use them."""
    return [
        ModelPreset(
            "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            {
                "height": 480,
                "width": 832,
                "num_frames": 81,
                "num_inference_steps": 50,
                "guidance_scale": 5.0,
                "negative_prompt": NEGATIVE_PROMPT,
            },
            "Wan 2.1 text-to-video, 1.3 billion parameters",
        ),
        ModelPreset(
            "Wan-AI/Wan2.1-T2V-14B-Diffusers",
            "Wan-AI/Wan2.1-T2V-14B-Diffusers",
            {
                "height": 720,
                "width": 1280,
                "num_frames": 81,
                "num_inference_steps": 50,
                "guidance_scale": 5.0,
                "negative_prompt": NEGATIVE_PROMPT,
            },
            "Wan 2.1 text-to-video, 14 billion parameters",
        ),
        ModelPreset(
            "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
            "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
            {
                "height": 480,
                "width": 832,
                "num_frames": 81,
                "num_inference_steps": 50,
                "guidance_scale": 5.0,
                "negative_prompt": NEGATIVE_PROMPT,
            },
            "Wan 2.1 image-to-video, 14 billion parameters",
        ),
    ]
