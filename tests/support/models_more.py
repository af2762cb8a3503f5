"""Real models of more families, with configurations small enough for tests; texts come to them as embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

IMAGE = torch.linspace(0, 1, 3 * 32 * 48).reshape(1, 3, 32, 48)
"""An image to start from, from 0 to 1."""


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


def build_kandinsky5_image_pipeline(seed: int = 0) -> Any:
    """Likewise one that starts from an image."""
    return build_kandinsky5_pipeline(seed, "Kandinsky5I2VPipeline")


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
            "max_size": (8, 16, 16),
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


def build_cosmos25_pipeline(seed: int = 0) -> Any:
    """A Cosmos 2.5, which has a timestep for every frame."""
    return _cosmos25("Cosmos2_5_PredictBasePipeline", seed)


def build_cosmos25_transfer_pipeline(seed: int = 0) -> Any:
    """A Cosmos 2.5 that follows a control video, and whose cross attention also sees an image of 3 tokens."""
    from diffusers import CosmosControlNetModel

    torch.manual_seed(seed)
    image = {"img_context_dim_in": 16, "img_context_dim_out": 32}
    control = CosmosControlNetModel(
        n_controlnet_blocks=1,
        in_channels=17,
        latent_channels=17,
        model_channels=32,
        num_attention_heads=2,
        attention_head_dim=16,
        mlp_ratio=2,
        text_embed_dim=16,
        adaln_lora_dim=4,
        max_size=(8, 16, 16),
        extra_pos_embed_type=None,
        **image,
    )
    changes = {"controlnet_block_every_n": 2, "img_context_num_tokens": 3, **image}
    return _cosmos25("Cosmos2_5_TransferPipeline", seed, {"controlnet": control.eval()}, **changes)


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
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
        ),
        safety_checker=LetsAllPass(),
        **(parts or {}),
    )


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
    "Kandinsky 5": (build_kandinsky5_pipeline, _KANDINSKY5),
    "Kandinsky 5 image": (build_kandinsky5_image_pipeline, {**_KANDINSKY5, "image": IMAGE, "num_frames": 17}),
    "Cosmos 1": (build_cosmos_pipeline, {**_COSMOS, "num_frames": 17}),
    "Cosmos 2.5": (build_cosmos25_pipeline, _COSMOS),
    "Helios": (build_helios_pipeline, {**_COSMOS, "num_frames": 33}),
}
"""A pipeline of each kind with random weights, and what `run` needs beside the usual."""
