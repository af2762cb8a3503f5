"""Presets of Kandinsky 5.0 Video: https://huggingface.co/docs/diffusers/api/pipelines/kandinsky5_video.

The checkpoints for 10 seconds have none: they are made for sparse attention of their own.
"""

from __future__ import annotations

from typing import Any

from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION

NEGATIVE_PROMPT = (
    "Static, 2D cartoon, cartoon, 2d animation, paintings, images, worst quality, low quality, ugly, deformed, walking "
    "backwards"
)
"""Of diffusers' examples."""


def _preset(kind: str, description: str, size: tuple[int, int] = (512, 768), **more: Any) -> ModelPreset:
    name = f"kandinskylab/Kandinsky-5.0-{kind}-5s-Diffusers"
    usual = {"num_frames": 121, "fps": 24, "num_inference_steps": 50, "guidance_scale": 5.0}
    return ModelPreset(
        name,
        name,
        {"height": size[0], "width": size[1], **usual, "negative_prompt": NEGATIVE_PROMPT, **more},
        f"Kandinsky 5.0 {description}",
        transformer="Kandinsky5Transformer3DModel",
        task="image to video" if kind.startswith("I2V") else "text to video",
    )


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Size, steps and guidance as diffusers' documentation has them; 1.0 where guidance is distilled."""
    unguided: dict[str, Any] = {"guidance_scale": 1.0, "negative_prompt": ""}
    return [
        _preset("T2V-Lite-sft", "Lite text-to-video, 2 billion parameters"),
        _preset("T2V-Lite-pretrain", "Lite text-to-video before fine-tuning, 2 billion parameters"),
        _preset("T2V-Lite-nocfg", "Lite text-to-video, guidance distilled, 2 billion parameters", **unguided),
        _preset(
            "T2V-Lite-distilled16steps",
            "Lite text-to-video in 16 steps, 2 billion parameters",
            num_inference_steps=16,
            **unguided,
        ),
        _preset("T2V-Pro-sft", "Pro text-to-video, 19 billion parameters", (768, 1024)),
        _preset("I2V-Pro-sft", "Pro image-to-video, 19 billion parameters"),
    ]
