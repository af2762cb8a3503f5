"""Presets of Cosmos 1 and Cosmos-Predict2, from diffusers' examples and its pipelines' defaults.

https://huggingface.co/nvidia

Predict2.5 and Cosmos 3 have none: their weights for diffusers lie in revisions of the repositories, or are made for
more than video. The pipelines ask for the package cosmos_guardrail.
"""

from __future__ import annotations

from fastvideo_core.builtin.presets.parts import T5_11B, WAN_VAE
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION

NEGATIVE_PROMPT = (
    "The video captures a series of frames showing ugly scenes, static with no motion, motion blur, over-saturation, "
    "shaky footage, low resolution, grainy texture, pixelated images, poorly lit areas, underexposed and overexposed "
    "scenes, poor color balance, washed out colors, choppy sequences, jerky movements, low frame rate, artifacting, "
    "color banding, unnatural transitions, outdated special effects, fake elements, unconvincing visuals, poorly "
    "edited content, jump cuts, visual noise, and flickering. Overall, the video is of poor quality."
)
"""Of diffusers' example for Cosmos-Predict2."""

_VAE = 105_653_696


def _first(kind: str, billions: int, transformer: int) -> ModelPreset:
    name, of_text = f"nvidia/Cosmos-1.0-Diffusion-{billions}B-{kind}", kind == "Text2World"
    return ModelPreset(
        name,
        name,
        {
            "height": 704,
            "width": 1280,
            "num_frames": 121,
            "fps": 30,
            "num_inference_steps": 36,
            "guidance_scale": 7.0,
        },
        f"Cosmos 1 {'text' if of_text else 'image or video'} to video, {billions} billion parameters",
        transformer="CosmosTransformer3DModel",
        task="text to video" if of_text else "image or video to video",
        parameters={"transformer": transformer, "text_encoder": T5_11B, "vae": _VAE},
    )


def _second(billions: int, transformer: int) -> ModelPreset:
    name = f"nvidia/Cosmos-Predict2-{billions}B-Video2World"
    return ModelPreset(
        name,
        name,
        {
            "height": 704,
            "width": 1280,
            "num_frames": 93,
            "fps": 16,
            "num_inference_steps": 35,
            "guidance_scale": 7.0,
            "negative_prompt": NEGATIVE_PROMPT,
        },
        f"Cosmos-Predict2 image or video to video, {billions} billion parameters",
        transformer="CosmosTransformer3DModel",
        task="image or video to video",
        parameters={"transformer": transformer, "text_encoder": T5_11B, "vae": WAN_VAE},
    )


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Size, steps and guidance as diffusers' pipelines for the checkpoints have them by default."""
    return [
        _first("Text2World", 7, 7_236_192_256),
        _first("Text2World", 14, 14_267_149_312),
        _first("Video2World", 7, 7_236_208_640),
        _first("Video2World", 14, 14_267_169_792),
        _second(2, 1_956_413_440),
        _second(14, 14_265_285_632),
    ]
