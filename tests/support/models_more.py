"""Real models of more families, with configurations small enough for tests; texts come to them as embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

IMAGE = torch.linspace(0, 1, 3 * 32 * 48).reshape(1, 3, 32, 48)
"""An image to start from, from 0 to 1."""

VIDEO = torch.linspace(0, 1, 9 * 3 * 32 * 48).reshape(9, 3, 32, 48).transpose(0, 1)[None]
"""A video of nine frames, (1, 3, frames, height, width), from 0 to 1."""


def text(tokens: int, width: int = 16) -> torch.Tensor:
    """Embeddings of a text, (1, tokens, width)."""
    return torch.linspace(-1, 1, tokens * width).reshape(1, tokens, width)


def build_kandinsky5_pipeline(seed: int = 0, kind: str = "Kandinsky5T2VPipeline", **changes: Any) -> Any:
    """A Kandinsky 5 with random weights: two layers, two heads of 16."""
    import diffusers

    torch.manual_seed(seed)
    transformer = diffusers.Kandinsky5Transformer3DModel(
        **{
            "in_visual_dim": 4,
            "out_visual_dim": 4,
            "in_text_dim": 16,
            "in_text_dim2": 16,
            "time_dim": 16,
            "model_dim": 32,
            "ff_dim": 32,
            "num_text_blocks": 1,
            "num_visual_blocks": 2,
            "axes_dims": (4, 6, 6),
            "visual_cond": True,
            **changes,
        }
    ).eval()
    for name, parameter in transformer.named_parameters():
        if "modulation" in name:  # which begin as zeros, so that no block would do anything
            torch.nn.init.normal_(parameter, std=0.3)
    return getattr(diffusers, kind)(
        transformer=transformer,
        vae=diffusers.AutoencoderKLHunyuanVideo(
            block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=2
        ).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0),
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
    )


class LetsAllPass(torch.nn.Module):
    """In the place of the guard that NVIDIA's pipelines do not run without, a model of 20 GB."""

    device = torch.device("cpu")

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, frames: Any) -> Any:
        return frames


def _cosmos_transformer(**changes: Any) -> Any:
    from diffusers import CosmosTransformer3DModel

    transformer = CosmosTransformer3DModel(
        **{
            "in_channels": 16,
            "out_channels": 16,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "mlp_ratio": 2,
            "text_embed_dim": 16,
            "adaln_lora_dim": 4,
            "max_size": (16, 16, 16),
            "concat_padding_mask": False,  # what resizes the mask is torchvision
            **changes,
        }
    ).eval()
    if transformer.learnable_pos_embed is not None:
        for parameter in transformer.learnable_pos_embed.parameters():
            torch.nn.init.normal_(parameter)  # zeros, and divided by their norm
    return transformer


def build_cosmos_pipeline(seed: int = 0) -> Any:
    """A Cosmos 1, with a position embedding that every block adds."""
    from diffusers import AutoencoderKLCosmos, CosmosTextToWorldPipeline, EDMEulerScheduler

    torch.manual_seed(seed)
    vae = AutoencoderKLCosmos(
        latent_channels=16,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
    )
    return CosmosTextToWorldPipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=_cosmos_transformer(),
        vae=vae.eval(),
        scheduler=EDMEulerScheduler(sigma_min=0.002, sigma_max=80, sigma_data=0.5, final_sigmas_type="sigma_min"),
        safety_checker=LetsAllPass(),
    )


def build_cosmos25_pipeline(seed: int = 0, **changes: Any) -> Any:
    """A Cosmos 2.5, which has a timestep for every frame."""
    return _cosmos25("Cosmos2_5_PredictBasePipeline", seed, **changes)


def _cosmos25(kind: str, seed: int, parts: dict[str, Any] | None = None, **changes: Any) -> Any:
    import diffusers

    torch.manual_seed(seed)
    vae = diffusers.AutoencoderKLWan(
        base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    return getattr(diffusers, kind)(
        text_encoder=None,
        tokenizer=None,
        transformer=_cosmos_transformer(in_channels=17, extra_pos_embed_type=None, **changes),
        vae=vae.eval(),
        safety_checker=LetsAllPass(),
        **{
            "scheduler": diffusers.UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
            ),
            **(parts or {}),
        },
    )


def build_cosmos2_pipeline(seed: int = 0) -> Any:
    """A Cosmos 2, which tells its transformer noise levels on a scale of its own."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    scheduler.register_to_config(sigma_max=80.0, sigma_min=0.002, sigma_data=1.0, final_sigmas_type="sigma_min")
    return _cosmos25("Cosmos2VideoToWorldPipeline", seed, {"scheduler": scheduler})


def build_helios_pyramid_pipeline(seed: int = 0) -> Any:
    """A Helios whose videos grow from stage to stage of a run.

    Its noise is correlated in blocks of 2 x 2. With the published gamma, 1/3, their covariance is singular, and whether
    a CPU factors it hangs on how it rounds.
    """
    return _helios("HeliosPyramidPipeline", "HeliosScheduler", seed, stages=2, stage_range=[0, 0.5, 1], gamma=0.25)


def build_helios_pipeline(seed: int = 0) -> Any:
    """A Helios with random weights: two layers, two heads of 16."""
    return _helios("HeliosPipeline", "FlowMatchEulerDiscreteScheduler", seed, use_dynamic_shifting=True)


def _helios(kind: str, scheduler: str, seed: int, **options: Any) -> Any:
    import diffusers

    torch.manual_seed(seed)
    vae = diffusers.AutoencoderKLWan(
        base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    transformer = diffusers.HeliosTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_dim=(4, 6, 6),
        is_amplify_history=True,
    )
    return getattr(diffusers, kind)(
        tokenizer=None,
        text_encoder=None,
        vae=vae.eval(),
        scheduler=getattr(diffusers, scheduler)(**options),
        transformer=transformer.eval(),
    )


def build_easyanimate_pipeline(seed: int = 0) -> Any:
    """An EasyAnimate with random weights: two layers, one with weights of the text's own, two heads of 16."""
    from diffusers import (
        AutoencoderKLMagvit,
        EasyAnimatePipeline,
        EasyAnimateTransformer3DModel,
        FlowMatchEulerDiscreteScheduler,
    )

    torch.manual_seed(seed)
    vae = AutoencoderKLMagvit(latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2)
    transformer = EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        patch_size=2,
        num_layers=2,
        mmdit_layers=1,
        time_embed_dim=8,
        text_embed_dim=16,
    )
    return EasyAnimatePipeline(
        vae=vae.eval(),
        text_encoder=None,
        tokenizer=None,
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


_KANDINSKY5: dict[str, Any] = {
    "prompt": None,
    "prompt_embeds_qwen": text(7),
    "prompt_embeds_clip": text(1)[0],
    "prompt_cu_seqlens": torch.tensor([0, 7]),
    "negative_prompt_embeds_qwen": -text(5),
    "negative_prompt_embeds_clip": -text(1)[0],
    "negative_prompt_cu_seqlens": torch.tensor([0, 5]),
}
_COSMOS: dict[str, Any] = {"prompt": None, "prompt_embeds": text(7), "negative_prompt_embeds": -text(5)}

MORE: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "Kandinsky 5": (lambda: build_kandinsky5_pipeline(num_text_blocks=0), _KANDINSKY5),  # one kind to compile
    "Cosmos 1": (build_cosmos_pipeline, {**_COSMOS, "num_frames": 17}),
    "Cosmos 2.5 video": (build_cosmos25_pipeline, {**_COSMOS, "video": VIDEO, "num_latent_conditional_frames": 1}),
    "Helios": (build_helios_pipeline, {**_COSMOS, "num_frames": 33}),
    "EasyAnimate": (
        build_easyanimate_pipeline,
        {
            **_COSMOS,
            "negative_prompt_embeds": -text(7),
            "prompt_attention_mask": torch.ones(1, 7),
            "negative_prompt_attention_mask": torch.ones(1, 7),
        },
    ),
}
"""A pipeline of each kind with random weights, and what `run` needs beside the usual."""

VARIANTS: dict[str, tuple[str, Callable[[], Any], dict[str, Any]]] = {
    "from an image": (
        "Kandinsky 5",
        lambda: build_kandinsky5_pipeline(kind="Kandinsky5I2VPipeline"),
        {**_KANDINSKY5, "image": IMAGE, "num_frames": 17},
    ),
    "from an image, too": ("Cosmos", build_cosmos2_pipeline, {**_COSMOS, "image": IMAGE}),
    "from a text": ("Cosmos", build_cosmos25_pipeline, _COSMOS),
    "in two stages": (
        "Helios",
        build_helios_pyramid_pipeline,
        {
            **_COSMOS,
            "num_frames": 33,
            "width": 64,
            "num_inference_steps": None,
            "pyramid_num_inference_steps_list": [2, 2],
        },
    ),
    "in two chunks": ("Helios", build_helios_pipeline, {**_COSMOS, "num_frames": 66}),
}
"""Other pipelines of these families: the family, and as above."""
