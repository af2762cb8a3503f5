"""Presets of HunyuanVideo and HunyuanVideo-1.5.

https://huggingface.co/tencent/HunyuanVideo, https://huggingface.co/tencent/HunyuanVideo-1.5,
https://huggingface.co/docs/diffusers/api/pipelines/hunyuan_video and hunyuan_video15, and the examples of diffusers'
pipelines. SkyReels V1 and Framepack are published as transformers alone, to be put into the folder of another model.
"""

from __future__ import annotations

from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION

_OWNER = "hunyuanvideo-community"
_CLIP_L, _VAE = 123_060_480, 246_478_803


def _first(name: str, task: str, text_encoder: int, guidance: float, fps: int, transformer: int) -> ModelPreset:
    return ModelPreset(
        f"{_OWNER}/{name}",
        f"{_OWNER}/{name}",
        {
            "height": 720,
            "width": 1280,
            "num_frames": 129,
            "fps": fps,
            "num_inference_steps": 50,
            "guidance_scale": guidance,
        },
        f"HunyuanVideo {task.replace(' ', '-')}, 13 billion parameters",
        transformer="HunyuanVideoTransformer3DModel",
        task=task,
        parameters={
            "transformer": transformer,
            "text_encoder": text_encoder,
            "text_encoder_2": _CLIP_L,
            "vae": _VAE,
        },
    )


def _second(name: str, size: tuple[int, int], what: str) -> ModelPreset:
    """HunyuanVideo-1.5: the scale is that of the guider in its folder, 1.0 where it is distilled."""
    of_image = "i2v" in name
    return ModelPreset(
        f"{_OWNER}/HunyuanVideo-1.5-Diffusers-{name}",
        f"{_OWNER}/HunyuanVideo-1.5-Diffusers-{name}",
        {
            "height": size[0],
            "width": size[1],
            "num_frames": 121,
            "fps": 24,
            "num_inference_steps": 50,
            "guidance_scale": 1.0 if "distilled" in name else 6.0,
        },
        f"HunyuanVideo-1.5 {what}, 8.3 billion parameters",
        transformer="HunyuanVideo15Transformer3DModel",
        task="image to video" if of_image else "text to video",
        parameters={
            "transformer": 8_326_608_160,
            "text_encoder": 7_070_619_136,
            "text_encoder_2": 217_657_472,
            "vae": 1_260_634_115,
            **({"image_encoder": 428_225_600} if of_image else {}),
        },
    )


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Size, steps and guidance as the model cards and diffusers' examples for the checkpoints use them."""
    small, large = (480, 848), (720, 1280)
    return [
        _first("HunyuanVideo", "text to video", 7_505_186_816, 6.0, 24, 12_821_012_544),
        _first("HunyuanVideo-I2V", "image to video", 8_355_272_704, 6.0, 15, 12_821_012_544),
        _first("HunyuanVideo-I2V-33ch", "image to video", 8_355_272_704, 1.0, 15, 12_810_991_680),
        _second("480p_t2v", small, "text-to-video at 480p"),
        _second("720p_t2v", large, "text-to-video at 720p"),
        _second("480p_i2v", small, "image-to-video at 480p"),
        _second("720p_i2v", large, "image-to-video at 720p"),
        _second("480p_t2v_distilled", small, "text-to-video at 480p, guidance distilled"),
        _second("480p_i2v_distilled", small, "image-to-video at 480p, guidance distilled"),
        _second("720p_i2v_distilled", large, "image-to-video at 720p, guidance distilled"),
    ]
