"""Pipelines of Wan's kin with random weights, small enough for tests: the parts of the small Wan, and transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.support import models
from tests.support.conditioned import VIDEO, with_parts

SMALL: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
}
SEES_IMAGE: dict[str, Any] = {"in_channels": 36, "out_channels": 16, "image_dim": 16, "added_kv_proj_dim": 32}
"""What a transformer has whose cross attention also sees an image."""


def build(kind: str, transformer: str, base: Any = None, **changes: Any) -> Any:
    """A pipeline of that class with the parts of another, and a small transformer of that class."""
    import diffusers

    base = base or models.build_wan_pipeline()
    torch.manual_seed(1)
    made = getattr(diffusers, transformer)(**{**SMALL, **changes}).eval()
    return with_parts(kind, base, transformer=made)


def build_vace(layers: int = 4, hints: tuple[int, ...] = (0, 2), experts: int = 1) -> Any:
    """A WanVACEPipeline whose hints are added behind the blocks of these numbers."""
    config = {"num_layers": layers, "vace_layers": list(hints), "vace_in_channels": 96}
    pipe = build("WanVACEPipeline", "WanVACETransformer3DModel", **config)
    if experts == 1:
        return pipe
    second = type(pipe.transformer)(**{**SMALL, **config}).eval()
    return with_parts("WanVACEPipeline", pipe, transformer_2=second, boundary_ratio=0.8)


def build_animate() -> Any:
    """A WanAnimatePipeline with four blocks, and adapters behind the first and the third."""
    return build(
        "WanAnimatePipeline",
        "WanAnimateTransformer3DModel",
        models.build_wan_image_pipeline(),
        **{**SEES_IMAGE, "latent_channels": 16, "num_layers": 4, "inject_face_latents_blocks": 2},
        motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8},
        motion_encoder_size=16,
        motion_style_dim=8,
        motion_dim=4,
        motion_encoder_dim=8,
        face_encoder_hidden_dim=8,
        face_encoder_num_heads=2,
    )


def build_skyreels(kind: str = "SkyReelsV2Pipeline", **changes: Any) -> Any:
    """A pipeline of SkyReels-V2."""
    return build(kind, "SkyReelsV2Transformer3DModel", **changes)


def build_skyreels_image() -> Any:
    """One of SkyReels-V2 from an image, which its cross attention sees."""
    parts = models.build_wan_image_pipeline()
    return build("SkyReelsV2ImageToVideoPipeline", "SkyReelsV2Transformer3DModel", parts, **SEES_IMAGE)


def build_chronoedit() -> Any:
    """A ChronoEditPipeline, which edits an image."""
    parts = models.build_wan_image_pipeline()
    return build("ChronoEditPipeline", "ChronoEditTransformer3DModel", parts, **SEES_IMAGE)


def build_lucy() -> Any:
    """A LucyEditPipeline: Wan 2.2 TI2V with the latents of a video beside its own."""
    return build("LucyEditPipeline", "WanTransformer3DModel", in_channels=32, out_channels=16)


def build_ti2v(kind: str = "WanPipeline") -> Any:
    """Wan 2.2 TI2V: an autoencoder with patches of its own and strides of 16, and a timestep for each token."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(2)
    parts = models.build_wan_pipeline().components
    parts["vae"] = AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=8,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_spatial=16,
        latents_mean=[0.0] * 8,
        latents_std=[1.0] * 8,
    ).eval()
    parts["transformer"] = models.build_wan_transformer(in_channels=8, out_channels=8)
    import diffusers

    return getattr(diffusers, kind)(
        **{name: parts[name] for name in ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")},
        expand_timesteps=True,
    )


def images(size: tuple[int, int] = (48, 32), frames: int = 9) -> list[Any]:
    """Frames of a video as images, each of another grey."""
    from PIL import Image

    return [Image.new("RGB", size, (20 * number, 100, 200)) for number in range(frames)]


IMAGE = torch.full((3, 32, 48), 0.5)
FORCING: dict[str, Any] = {"negative_prompt": "dog"}
ASYNCHRONOUS: dict[str, Any] = {**FORCING, "ar_step": 1, "causal_block_size": 1}
"""With three frames of latents and a lag of a step each."""

WANS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "VACE": (build_vace, {"video": images(), "num_inference_steps": 4}),
    "VACE 2.2": (lambda: build_vace(experts=2), {"num_inference_steps": 5}),
    "Animate": (
        build_animate,
        {
            "image": images()[5],
            "pose_video": images(),
            "face_video": images((16, 16)),
            "segment_frame_length": 9,
            "num_frames": None,
        },
    ),
    "SkyReels": (build_skyreels, {}),
    "SkyReels image": (build_skyreels_image, {"image": images()[5]}),
    "SkyReels forcing": (lambda: build_skyreels("SkyReelsV2DiffusionForcingPipeline"), FORCING),
    "SkyReels forcing, frame rate": (
        lambda: build_skyreels("SkyReelsV2DiffusionForcingPipeline", inject_sample_info=True),
        FORCING,
    ),
    "SkyReels forcing asynchronous": (
        lambda: build_skyreels("SkyReelsV2DiffusionForcingPipeline"),
        ASYNCHRONOUS,
    ),
    "SkyReels forcing image": (
        lambda: build_skyreels("SkyReelsV2DiffusionForcingImageToVideoPipeline"),
        {**FORCING, "image": images()[5]},
    ),
    "SkyReels forcing video": (
        lambda: build_skyreels("SkyReelsV2DiffusionForcingVideoToVideoPipeline"),
        {**FORCING, "video": images(frames=5), "num_frames": 17, "base_num_frames": 17, "overlap_history": 5},
    ),
    "TI2V": (build_ti2v, {"height": 64, "width": 96}),
    "TI2V image": (
        lambda: build_ti2v("WanImageToVideoPipeline"),
        {"height": 64, "width": 96, "image": torch.full((3, 64, 96), 0.5)},
    ),
    "ChronoEdit": (build_chronoedit, {"image": images()[5], "num_frames": 5}),
    "Lucy": (build_lucy, {"video": images()}),
    "video to video": (
        lambda: with_parts("WanVideoToVideoPipeline", models.build_wan_pipeline()),
        {"video": VIDEO[None], "num_frames": None, "strength": 0.7},
    ),
}
"""A pipeline of each kind, and what `run` needs beside the usual."""
