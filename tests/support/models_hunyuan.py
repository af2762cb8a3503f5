"""Tiny HunyuanVideo-1.5 and Framepack pipelines, with random weights."""

from __future__ import annotations

from typing import Any

import torch

from tests.support.models import build_hunyuan_pipeline, build_tokenizer

_TEMPLATE = "{{ 'cat ' * 108 }}{{ messages[1]['content'] }} dog"
"""A chat's first 108 tokens are cut off by the pipeline."""


def build_hunyuan15_transformer(**changes: Any) -> Any:
    """Two layers, two heads of 16."""
    from diffusers import HunyuanVideo15Transformer3DModel

    torch.manual_seed(0)
    return HunyuanVideo15Transformer3DModel(
        **{
            "in_channels": 9,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "num_refiner_layers": 1,
            "mlp_ratio": 2.0,
            "text_embed_dim": 16,
            "text_embed_2_dim": 8,
            "image_embed_dim": 12,
            "rope_axes_dim": (4, 6, 6),
            "target_size": 40,
            **changes,
        }
    ).eval()


def _parts(guider: Any = None, **changes: Any) -> dict[str, Any]:
    from diffusers import AutoencoderKLHunyuanVideo15, ClassifierFreeGuidance, FlowMatchEulerDiscreteScheduler
    from transformers import ByT5Tokenizer, Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel, T5Config, T5EncoderModel

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    tokenizer.chat_template = _TEMPLATE
    text = Qwen2_5_VLTextConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        rope_scaling={"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    glyphs = T5Config(vocab_size=384, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    return {
        "tokenizer": tokenizer,
        "tokenizer_2": ByT5Tokenizer(),
        "text_encoder": Qwen2_5_VLTextModel(text).eval(),
        "text_encoder_2": T5EncoderModel(glyphs).eval(),
        "vae": AutoencoderKLHunyuanVideo15(
            latent_channels=4, block_out_channels=(8, 8, 8, 8, 8), layers_per_block=1
        ).eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
        "guider": guider or ClassifierFreeGuidance(guidance_scale=3.0),
        "transformer": build_hunyuan15_transformer(**changes),
    }


def build_hunyuan15_pipeline(guider: Any = None, **changes: Any) -> Any:
    """A HunyuanVideo15Pipeline with an image of 5 tokens, which is none."""
    from diffusers import HunyuanVideo15Pipeline

    pipe = HunyuanVideo15Pipeline(**_parts(guider, **changes))
    pipe.vision_num_semantic_tokens = 5
    return pipe


def build_hunyuan15_image_pipeline() -> Any:
    """A HunyuanVideo15ImageToVideoPipeline with an image of 4 tokens."""
    from diffusers import HunyuanVideo15ImageToVideoPipeline

    return HunyuanVideo15ImageToVideoPipeline(**_parts(), **_vision(12))


def _vision(width: int) -> dict[str, Any]:
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    vision = SiglipVisionConfig(
        hidden_size=width, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    return {
        "image_encoder": SiglipVisionModel(vision).eval(),
        "feature_extractor": SiglipImageProcessor(size={"height": 8, "width": 8}),
    }


def build_framepack_pipeline() -> Any:
    """A HunyuanVideoFramepackPipeline: one double and two single blocks, two heads of 16, an image of 4 tokens."""
    from diffusers import HunyuanVideoFramepackPipeline, HunyuanVideoFramepackTransformer3DModel

    torch.manual_seed(0)
    transformer = HunyuanVideoFramepackTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=2,
        num_refiner_layers=1,
        text_embed_dim=16,
        pooled_projection_dim=16,
        rope_axes_dim=(4, 6, 6),
        has_image_proj=True,
        image_proj_dim=12,
        has_clean_x_embedder=True,
    )
    parts = {**build_hunyuan_pipeline().components, "transformer": transformer.eval(), **_vision(12)}
    return HunyuanVideoFramepackPipeline(**parts)


def build_token_replace_pipeline() -> Any:
    """A HunyuanVideoImageToVideoPipeline that has the image in place of the first frame."""
    from diffusers import HunyuanVideoImageToVideoPipeline

    parts = build_hunyuan_pipeline(image_condition_type="token_replace").components
    return HunyuanVideoImageToVideoPipeline(**{**parts, "text_encoder": None, "image_processor": None})


def build_allegro_pipeline() -> Any:
    """An AllegroPipeline: two layers, two heads of 24, whose thirds have a rotary embedding each."""
    from diffusers import (
        AllegroPipeline,
        AllegroTransformer3DModel,
        AutoencoderKLAllegro,
        DDIMScheduler,
    )

    torch.manual_seed(0)
    return AllegroPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=AutoencoderKLAllegro(
            latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2
        ).eval(),
        transformer=AllegroTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=24,
            num_layers=2,
            cross_attention_dim=48,
            caption_channels=16,
            sample_width=6,
            sample_height=4,
            sample_frames=3,
        ).eval(),
        scheduler=DDIMScheduler(),
    )


PROMPTS: dict[str, Any] = {
    "prompt_embeds": torch.linspace(-1, 1, 7 * 16).reshape(1, 7, 16),
    "negative_prompt_embeds": torch.linspace(1, -1, 7 * 16).reshape(1, 7, 16),
    "prompt_attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0, 0]]),
    "negative_prompt_attention_mask": torch.tensor([[1, 1, 0, 0, 0, 0, 0]]),
}


def latents_of_prompts(pipe: Any) -> torch.Tensor:
    """Latents of one short generation of Allegro."""
    latents: torch.Tensor = pipe(
        **PROMPTS,
        negative_prompt=None,
        height=32,
        width=48,
        num_frames=9,
        num_inference_steps=4,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
    ).frames
    return latents


def _embeddings(prefix: str, sign: int, text: list[list[int]], glyphs: list[list[int]]) -> dict[str, Any]:
    """Text of 7 tokens and glyphs of 4; which are real."""
    batch = len(text)
    return {
        f"{prefix}prompt_embeds": sign * torch.linspace(-1, 1, batch * 7 * 16).reshape(batch, 7, 16),
        f"{prefix}prompt_embeds_mask": torch.tensor(text),
        f"{prefix}prompt_embeds_2": sign * torch.linspace(-1, 1, batch * 4 * 8).reshape(batch, 4, 8),
        f"{prefix}prompt_embeds_mask_2": torch.tensor(glyphs),
    }


TEXT: dict[str, Any] = {
    **_embeddings("", 1, [[1, 1, 1, 1, 0, 0, 0]], [[1, 1, 0, 0]]),
    **_embeddings("negative_", -1, [[1, 1, 0, 0, 0, 0, 0]], [[0, 0, 0, 0]]),
}
"""A prompt of 4 tokens and 2 of glyphs, and what guidance leads away from, of 2 tokens."""

TWO_TEXTS: dict[str, Any] = {
    **_embeddings("", 1, [[1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]], [[1, 1, 0, 0], [0, 0, 0, 0]]),
    **_embeddings("negative_", -1, [[1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]], [[0, 0, 0, 0], [1, 0, 0, 0]]),
}
"""Likewise two prompts of other lengths."""


def hunyuan15_latents(pipe: Any, **options: Any) -> torch.Tensor:
    """Latents of one short generation; (batch, 4, 3, 2, 3)."""
    image = {"image": _picture()} if hasattr(pipe, "image_encoder") else {"height": 32, "width": 48}
    given = {**TEXT, **image, "num_frames": 9, "num_inference_steps": 3, **options}
    latents: torch.Tensor = pipe(generator=torch.Generator("cpu").manual_seed(7), output_type="latent", **given).frames
    return latents


def _picture() -> Any:
    from PIL import Image

    return Image.linear_gradient("L").resize((48, 32)).convert("RGB")
