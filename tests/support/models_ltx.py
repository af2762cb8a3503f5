"""Real LTX pipelines, beside the plain LTXPipeline, with configurations small enough for tests."""

from __future__ import annotations

from typing import Any

import torch

from tests.support.models import build_ltx_pipeline, build_tokenizer

LTX_SIZE: dict[str, Any] = {
    "height": 64,
    "width": 96,
    "num_frames": 17,
    "num_inference_steps": 3,
    "negative_prompt": "dog",
}
"""What a small LTX-Video is called with: a 3x2x3 grid of tokens."""

LTX2_SIZE: dict[str, Any] = {
    **LTX_SIZE,
    "frame_rate": 8.0,
    "max_sequence_length": 8,
    "spatio_temporal_guidance_blocks": [1],
}
"""What a small LTX-2 is called with: likewise, and 53 tokens of audio, in three passes for each step."""


def build_ltx2_pipeline(seed: int = 0, kind: str = "LTX2Pipeline", **changes: Any) -> Any:
    """An LTX-2 pipeline with random weights: two layers, two heads of 16, for audio two heads of 8.

    The transformer is like that of LTX-2.3: it takes part in spatio-temporal guidance, gates its heads, and has rotary
    embeddings per head.
    """
    import diffusers

    torch.manual_seed(seed)
    audio_vae = build_ltx2_audio_vae()
    return getattr(diffusers, kind)(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=build_ltx2_vae(),
        audio_vae=audio_vae,
        text_encoder=build_gemma(),
        tokenizer=build_tokenizer(),
        connectors=build_ltx2_connectors(),
        transformer=build_ltx2_transformer(**changes),
        vocoder=build_ltx2_vocoder(audio_vae),
    )


def build_ltx2_0_pipeline(seed: int = 0, kind: str = "LTX2Pipeline") -> Any:
    """Likewise as LTX-2.0 was: no perturbed attention, no gates, rotary embeddings of all heads together."""
    return build_ltx2_pipeline(
        seed,
        kind,
        perturbed_attn=False,
        gated_attn=False,
        cross_attn_mod=False,
        audio_gated_attn=False,
        audio_cross_attn_mod=False,
        rope_type="interleaved",
    )


def build_ltx2_transformer(**changes: Any) -> Any:
    from diffusers import LTX2VideoTransformer3DModel

    return LTX2VideoTransformer3DModel(
        **{
            "in_channels": 8,
            "out_channels": 8,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "cross_attention_dim": 32,
            "gated_attn": True,
            "cross_attn_mod": True,
            "audio_in_channels": 4,
            "audio_out_channels": 4,
            "audio_num_attention_heads": 2,
            "audio_attention_head_dim": 8,
            "audio_cross_attention_dim": 16,
            "audio_gated_attn": True,
            "audio_cross_attn_mod": True,
            "num_layers": 2,
            "caption_channels": 16,
            "rope_type": "split",
            "perturbed_attn": True,
            **changes,
        }
    ).eval()


def build_ltx2_vae() -> Any:
    from diffusers import AutoencoderKLLTX2Video

    return AutoencoderKLLTX2Video(
        latent_channels=8,
        block_out_channels=(8, 16, 32, 64),
        decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    ).eval()


def build_ltx2_audio_vae() -> Any:
    from diffusers import AutoencoderKLLTX2Audio

    return AutoencoderKLLTX2Audio(
        base_channels=4, ch_mult=(1, 1, 1), num_res_blocks=1, resolution=32, latent_channels=2, mel_bins=8
    ).eval()


def build_ltx2_connectors() -> Any:
    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors

    return LTX2TextConnectors(
        caption_channels=16,
        text_proj_in_factor=2,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=8,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=8,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=8,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=8,
    ).eval()


def build_ltx2_vocoder(audio_vae: Any) -> Any:
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    return LTX2Vocoder(
        in_channels=audio_vae.config.output_channels * audio_vae.config.mel_bins,
        hidden_channels=8,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1]],
        output_sampling_rate=16000,
    ).eval()


def build_gemma() -> Any:
    """A Gemma 3 of width 16 and one layer."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig, SiglipVisionConfig

    text = Gemma3TextConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=5)
    return Gemma3ForConditionalGeneration(config).eval()


def conditions(*frames: int, strength: float = 0.8) -> list[Any]:
    """An image for each of these frames, for an LTXConditionPipeline."""
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    return [LTXVideoCondition(image=build_image(), frame_index=frame, strength=strength) for frame in frames]


def build_image() -> Any:
    """A picture as large as the video, that is not the same everywhere."""
    import numpy as np
    from PIL import Image

    shape = (LTX_SIZE["height"], LTX_SIZE["width"], 3)
    return Image.fromarray(np.linspace(0, 255, shape[0] * shape[1] * 3).reshape(shape).astype("uint8"))


def run_ltx(pipe: Any, **options: Any) -> torch.Tensor:
    """Latents of an LTX-Video pipeline."""
    generator = torch.Generator().manual_seed(7)
    given = {"prompt": "cat", "guidance_scale": 3.0, "output_type": "latent", **LTX_SIZE, **options}
    latents: torch.Tensor = pipe(generator=generator, **given).frames
    return latents


def run_ltx2(pipe: Any, **options: Any) -> torch.Tensor:
    """Latents of video and audio, one behind the other."""
    generator = torch.Generator().manual_seed(7)
    given = {"prompt": "cat", "guidance_scale": 3.0, "output_type": "latent", **LTX2_SIZE, **options}
    result = pipe(generator=generator, **given)
    return torch.cat([result.frames.flatten(), result.audio.flatten()])


def build_ltx_condition_pipeline(seed: int = 0) -> Any:
    """An LTXConditionPipeline, which gives the transformer coordinates of its tokens rather than a grid."""
    from diffusers import LTXConditionPipeline

    return LTXConditionPipeline(**build_ltx_pipeline(seed).components)


def build_ltx_long_pipeline(seed: int = 0) -> Any:
    """An LTXI2VLongMultiPromptPipeline, which makes a long video in windows of time."""
    from diffusers import LTXEulerAncestralRFScheduler, LTXI2VLongMultiPromptPipeline

    parts = {**build_ltx_pipeline(seed).components, "scheduler": LTXEulerAncestralRFScheduler()}
    return LTXI2VLongMultiPromptPipeline(**parts)
