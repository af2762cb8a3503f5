"""The preset of Helios: https://huggingface.co/docs/diffusers/api/pipelines/helios and diffusers' example.

Helios-Mid and Helios-Distilled have none: their pipeline takes a list of steps per resolution.
"""

from __future__ import annotations

from fastvideo_core.builtin.presets.parts import UMT5_XXL, WAN_VAE
from fastvideo_core.builtin.presets.wan import NEGATIVE_PROMPT
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Size, frames and guidance as diffusers' example for the checkpoint uses them; Wan's negative prompt."""
    return [
        ModelPreset(
            "BestWishYsh/Helios-Base",
            "BestWishYsh/Helios-Base",
            {
                "height": 384,
                "width": 640,
                "num_frames": 129,  # the example asks for 132, in four chunks of 33, and is given 129
                "fps": 24,
                "num_inference_steps": 50,
                "guidance_scale": 5.0,
                "negative_prompt": NEGATIVE_PROMPT,
            },
            "Helios, long videos in chunks of 33 frames, 14 billion parameters",
            transformer="HeliosTransformer3DModel",
            task="text or image or video to video",
            parameters={"transformer": 14_312_427_584, "text_encoder": UMT5_XXL, "vae": WAN_VAE},
        ),
    ]
