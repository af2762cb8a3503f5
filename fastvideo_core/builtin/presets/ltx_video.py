"""Presets of LTX-Video and LTX-2, from diffusers' pages on ltx_video and ltx2 and its examples.

https://huggingface.co/Lightricks

The checkpoints with a spatial upscaler have the sizes of diffusers' example before it upscales; their distilled ones
are made for timesteps of their own, of which a generator gives the number alone.
"""

from __future__ import annotations

from typing import Any

from fastvideo_core.builtin.presets.parts import T5_XXL
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION

NEGATIVE_PROMPT = "worst quality, inconsistent motion, blurry, jittery, distorted"
"""Of diffusers' examples for every one of them."""

_13B = 13_042_569_344


def _preset(
    name: str, size: tuple[int, int, int], description: str, parameters: dict[str, int], **more: Any
) -> ModelPreset:
    frames, height, width = size
    transformer, task = more.pop("transformer", "LTXVideoTransformer3DModel"), more.pop("task", "text to video")
    usual = {"num_frames": frames, "fps": 24, "num_inference_steps": 50, "guidance_scale": 3.0}
    return ModelPreset(
        f"Lightricks/{name}",
        f"Lightricks/{name}",
        {"height": height, "width": width, **usual, "negative_prompt": NEGATIVE_PROMPT, **more},
        description,
        transformer=transformer,
        task=task,
        parameters=parameters,
    )


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Size, steps and guidance as diffusers' examples for the checkpoints use them."""
    condition: dict[str, Any] = {"task": "text or image or video to video"}
    of_13b = {"transformer": _13B, "text_encoder": T5_XXL}
    return [
        _preset(
            "LTX-Video",
            (161, 480, 704),
            "LTX-Video text-to-video, 2 billion parameters",
            {"transformer": 1_923_385_472, "text_encoder": T5_XXL, "vae": 419_193_649},
        ),
        _preset(
            "LTX-Video-0.9.5",
            (161, 512, 768),
            "LTX-Video 0.9.5, 2 billion parameters",
            {"transformer": 1_923_385_472, "text_encoder": T5_XXL},
            num_inference_steps=40,
            **condition,
        ),
        _preset(
            "LTX-Video-0.9.7-dev",
            (161, 512, 768),
            "LTX-Video 0.9.7, 13 billion parameters",
            of_13b,
            num_inference_steps=30,
            guidance_scale=5.0,
            **condition,
        ),
        _preset(
            "LTX-Video-0.9.7-distilled",
            (161, 512, 768),
            "LTX-Video 0.9.7 distilled, 13 billion parameters",
            of_13b,
            num_inference_steps=8,
            guidance_scale=1.0,
            **condition,
        ),
        _preset(
            "LTX-Video-0.9.8-13B-distilled",
            (161, 512, 768),
            "LTX-Video 0.9.8 distilled, 13 billion parameters",
            of_13b,
            num_inference_steps=8,
            guidance_scale=1.0,
            **condition,
        ),
        _preset(
            "LTX-2",
            (121, 512, 768),
            "LTX-2 text-to-video with sound, 19 billion parameters",
            {
                "transformer": 18_876_174_592,
                "text_encoder": 12_202_563_392,
                "connectors": 1_431_475_200,
                "vae": 1_222_479_601,
                "audio_vae": 53_248_146,
                "vocoder": 55_592_802,
            },
            transformer="LTX2VideoTransformer3DModel",
            num_inference_steps=30,
        ),
    ]
