"""Presets of SkyReels V2: https://huggingface.co/docs/diffusers/api/pipelines/skyreels_v2 and diffusers' examples.

The 720P checkpoints of diffusion forcing are made for windows of 121 frames, which a generator cannot give; theirs has
the 97 frames that the pipeline takes at once by default.
"""

from __future__ import annotations

from fastvideo_core.builtin.presets.parts import CLIP_H, UMT5_XXL, WAN_VAE
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION

_540P, _720P = (544, 960), (720, 1280)
_COUNTS = {
    "DF-1.3B": 1_435_525_696,
    "DF-14B": 14_472_038_464,
    "T2V-14B": 14_288_491_584,
    "I2V-1.3B": 1_564_428_608,
    "I2V-14B": 16_394_878_784,
}


def _preset(kind: str, size: tuple[int, int], frames: int = 97) -> ModelPreset:
    """Guidance 6.0 and a flow shift of 8.0 for text, 5.0 and 5.0 for images; 30 steps for diffusion forcing."""
    name = f"Skywork/SkyReels-V2-{kind}-{540 if size is _540P else 720}P-Diffusers"
    of_image, forcing = kind.startswith("I2V"), kind.startswith("DF")
    what = "image-to-video" if of_image else "text-to-video by diffusion forcing" if forcing else "text-to-video"
    scale, shift = (5.0, 5.0) if of_image else (6.0, 8.0)
    return ModelPreset(
        name,
        name,
        {
            "height": size[0],
            "width": size[1],
            "num_frames": frames,
            "fps": 24,
            "num_inference_steps": 30 if forcing else 50,
            "guidance_scale": scale,
        },
        f"SkyReels V2 {what}, {kind.partition('-')[2].removesuffix('B')} billion parameters",
        transformer="SkyReelsV2Transformer3DModel",
        task="image to video" if of_image else "text to video",
        parameters={
            "transformer": _COUNTS[kind],
            "text_encoder": UMT5_XXL,
            "vae": WAN_VAE,
            **({"image_encoder": CLIP_H} if of_image else {}),
        },
        flow_shift={size: shift},
    )


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Every checkpoint that diffusers' page lists, but the one that needs a last image."""
    return [
        _preset("DF-1.3B", _540P),
        _preset("DF-14B", _540P),
        _preset("DF-14B", _720P),
        _preset("T2V-14B", _540P),
        _preset("T2V-14B", _720P, 121),
        _preset("I2V-1.3B", _540P),
        _preset("I2V-14B", _540P),
        _preset("I2V-14B", _720P, 121),
    ]
