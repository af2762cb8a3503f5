"""Presets of Wan, from the model cards of its checkpoints and from diffusers' documentation.

https://huggingface.co/Wan-AI, https://huggingface.co/docs/diffusers/api/pipelines/wan and the examples of diffusers'
pipelines. What needs a last image beside the first (FLF2V) and what needs videos of poses and faces (Animate) has no
preset: a generator has no such inputs.
"""

from __future__ import annotations

from typing import Any

from fastvideo_core.builtin.presets.parts import CLIP_H, UMT5_XXL, WAN_VAE
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION

NEGATIVE_PROMPT = (
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall "
    "gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, "
    "poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three "
    "legs, many people in the background, walking backwards"
)
"""What the model cards, and diffusers' examples, give as negative prompt."""

_480P, _720P = (480, 832), (720, 1280)
_SHIFTS = {_480P: 3.0, _720P: 5.0}
"""Of Wan 2.1, as diffusers' examples say: "5.0 for 720P, 3.0 for 480P"."""

_TEXT, _IMAGE = "text to video", "image to video"


def _preset(
    name: str,
    size: tuple[int, int],
    description: str,
    task: str,
    parameters: dict[str, int],
    transformer: str = "WanTransformer3DModel",
    flow_shift: dict[tuple[int, int], float] | None = None,
    **sampling: Any,
) -> ModelPreset:
    usual = {"num_frames": 81, "fps": 16, "num_inference_steps": 50, "guidance_scale": 5.0}
    return ModelPreset(
        f"Wan-AI/{name}",
        f"Wan-AI/{name}",
        {"height": size[0], "width": size[1], **usual, "negative_prompt": NEGATIVE_PROMPT, **sampling},
        description,
        transformer=transformer,
        task=task,
        parameters={"text_encoder": UMT5_XXL, "vae": WAN_VAE, **parameters},
        flow_shift=flow_shift or {},
    )


def _two_experts(count: int) -> dict[str, int]:
    return {"transformer": count, "transformer_2": count}


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Sizes, steps, guidance, negative prompt and flow shift as the model cards of the checkpoints use them."""
    of_image = {"transformer": 16_394_878_784, "image_encoder": CLIP_H}
    vace: dict[str, Any] = {
        "task": "text or video to video",
        "transformer": "WanVACETransformer3DModel",
        "flow_shift": _SHIFTS,
        "num_inference_steps": 30,  # diffusers' example for WanVACEPipeline
    }
    return [
        _preset(
            "Wan2.1-T2V-1.3B-Diffusers",
            _480P,
            "Wan 2.1 text-to-video, 1.3 billion parameters",
            _TEXT,
            {"transformer": 1_418_996_800},
            flow_shift=_SHIFTS,
        ),
        _preset(
            "Wan2.1-T2V-14B-Diffusers",
            _720P,
            "Wan 2.1 text-to-video, 14 billion parameters",
            _TEXT,
            {"transformer": 14_288_491_584},
            flow_shift=_SHIFTS,
        ),
        _preset(
            "Wan2.1-I2V-14B-480P-Diffusers",
            _480P,
            "Wan 2.1 image-to-video, 14 billion parameters",
            _IMAGE,
            of_image,
            flow_shift=_SHIFTS,
        ),
        _preset(
            "Wan2.1-I2V-14B-720P-Diffusers",
            _720P,
            "Wan 2.1 image-to-video, 14 billion parameters",
            _IMAGE,
            of_image,
            flow_shift=_SHIFTS,
        ),
        _preset(
            "Wan2.1-VACE-1.3B-diffusers",
            _480P,
            "Wan 2.1 VACE, controlled by a video, 1.3 billion parameters",
            parameters={"transformer": 2_153_972_032},
            **vace,
        ),
        _preset(
            "Wan2.1-VACE-14B-diffusers",
            _720P,
            "Wan 2.1 VACE, controlled by a video, 14 billion parameters",
            parameters={"transformer": 17_337_592_896},
            **vace,
        ),
        # Wan 2.2's cards, and its wan/configs: 40 steps; guidance for high noise, then for low noise. They name no
        # flow shift for diffusers: that of the checkpoint's scheduler stays.
        _preset(
            "Wan2.2-T2V-A14B-Diffusers",
            _720P,
            "Wan 2.2 text-to-video, two experts of 14 billion parameters",
            _TEXT,
            _two_experts(14_288_491_584),
            num_inference_steps=40,
            guidance_scale=4.0,
            guidance_scale_2=3.0,
        ),
        _preset(
            "Wan2.2-I2V-A14B-Diffusers",
            _480P,
            "Wan 2.2 image-to-video, two experts of 14 billion parameters",
            _IMAGE,
            _two_experts(14_288_901_184),
            num_inference_steps=40,
            guidance_scale=3.5,
        ),
        _preset(
            "Wan2.2-TI2V-5B-Diffusers",
            (704, 1280),
            "Wan 2.2 text-to-video, 5 billion parameters, 24 frames per second",
            _TEXT,
            {"transformer": 4_999_787_712, "vae": 704_688_668},
            num_frames=121,
            fps=24,
        ),
    ]
