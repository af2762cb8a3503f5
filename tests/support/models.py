"""Real models of diffusers and transformers with configurations small enough for tests."""

from __future__ import annotations

from typing import Any

import torch

SIZE = {"height": 32, "width": 48, "num_frames": 9, "num_inference_steps": 3}
"""What the small pipeline is called with: a 3x2x3 grid of tokens."""


def build_wan_pipeline(seed: int = 0, experts: int = 1) -> Any:
    """A WanPipeline with random weights: two layers, two heads of 16. With two experts it is a Wan 2.2."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(seed)
    text = UMT5Config(
        vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0, eos_token_id=1
    )
    return WanPipeline(
        tokenizer=build_tokenizer(),
        text_encoder=UMT5EncoderModel(text).eval(),
        vae=AutoencoderKLWan(
            base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        ).eval(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=build_wan_transformer(),
        transformer_2=build_wan_transformer() if experts == 2 else None,
        boundary_ratio=0.8 if experts == 2 else None,
    )


def build_wan_per_token_pipeline(seed: int = 0) -> Any:
    """A WanPipeline that gives the transformer a timestep for each token, as Wan 2.2 TI2V does."""
    pipe = build_wan_pipeline(seed)
    pipe.register_to_config(expand_timesteps=True)
    return pipe


def build_wan_image_per_token_pipeline(seed: int = 0) -> Any:
    """Likewise from an image, whose tokens have the timestep 0."""
    from diffusers import WanImageToVideoPipeline

    parts = build_wan_pipeline(seed).components
    return WanImageToVideoPipeline(
        **{name: parts[name] for name in ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")},
        expand_timesteps=True,
    )


def build_wan_image_pipeline(seed: int = 0) -> Any:
    """A WanImageToVideoPipeline of Wan 2.1, whose cross attention also sees an image of 5 tokens."""
    from diffusers import WanImageToVideoPipeline
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    parts = build_wan_pipeline(seed).components
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
    )
    return WanImageToVideoPipeline(
        **{name: parts[name] for name in ("tokenizer", "text_encoder", "vae", "scheduler")},
        transformer=build_wan_transformer(in_channels=36, image_dim=16, added_kv_proj_dim=32),
        image_encoder=CLIPVisionModel(vision).eval(),
        image_processor=CLIPImageProcessor(size=8, crop_size=8),
    )


def build_hunyuan_pipeline(seed: int = 0, **changes: Any) -> Any:
    """A HunyuanVideoPipeline with random weights: one double and two single blocks, two heads of 16."""
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

    torch.manual_seed(seed)
    llama = LlamaConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    clip = CLIPTextConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    tokenizer = build_tokenizer()
    return HunyuanVideoPipeline(
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        text_encoder=LlamaModel(llama).eval(),
        text_encoder_2=CLIPTextModel(clip).eval(),
        vae=AutoencoderKLHunyuanVideo(
            block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=2
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        transformer=HunyuanVideoTransformer3DModel(
            **{
                "in_channels": 4,
                "out_channels": 4,
                "num_attention_heads": 2,
                "attention_head_dim": 16,
                "num_layers": 1,
                "num_single_layers": 2,
                "num_refiner_layers": 1,
                "text_embed_dim": 16,
                "pooled_projection_dim": 16,
                "rope_axes_dim": (4, 6, 6),
                **changes,
            }
        ).eval(),
    )


def build_ltx_pipeline(seed: int = 0) -> Any:
    """An LTXPipeline with random weights: two layers, two heads of 16."""
    from diffusers import (
        AutoencoderKLLTXVideo,
        FlowMatchEulerDiscreteScheduler,
        LTXPipeline,
        LTXVideoTransformer3DModel,
    )
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    text = T5Config(
        vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0, eos_token_id=1
    )
    return LTXPipeline(
        tokenizer=build_tokenizer(),
        text_encoder=T5EncoderModel(text).eval(),
        vae=AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=16,
            cross_attention_dim=32,
            num_layers=2,
            caption_channels=16,
        ).eval(),
    )


def build_cogvideox_pipeline(seed: int = 0, **changes: Any) -> Any:
    """A CogVideoXPipeline with random weights: two layers, two heads of 16."""
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )

    torch.manual_seed(seed)
    blocks = 4
    return CogVideoXPipeline(
        tokenizer=build_tokenizer(),
        text_encoder=build_t5(),
        vae=AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * blocks,
            up_block_types=("CogVideoXUpBlock3D",) * blocks,
            block_out_channels=(8,) * blocks,
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
        ).eval(),
        transformer=CogVideoXTransformer3DModel(
            **{
                "num_attention_heads": 2,
                "attention_head_dim": 16,
                "in_channels": 4,
                "out_channels": 4,
                "time_embed_dim": 8,
                "text_embed_dim": 16,
                "num_layers": 2,
                "sample_width": 6,
                "sample_height": 4,
                "sample_frames": 9,
                "max_text_seq_length": 16,
                "use_rotary_positional_embeddings": True,
                **changes,
            }
        ).eval(),
        scheduler=CogVideoXDDIMScheduler(),
    )


def build_mochi_pipeline(seed: int = 0) -> Any:
    """A MochiPipeline with random weights: two layers, two heads of 16."""
    from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel

    torch.manual_seed(seed)
    pipe = MochiPipeline(
        tokenizer=build_tokenizer(),
        text_encoder=build_t5(),
        vae=AutoencoderKLMochi(
            latent_channels=12,
            encoder_block_out_channels=(32, 32, 32, 32),
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
        ).eval(),
        transformer=MochiTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=2,
            pooled_projection_dim=16,
            text_embed_dim=16,
            time_embed_dim=8,
            max_sequence_length=16,
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
    torch.nn.init.normal_(pipe.transformer.pos_frequencies)
    return pipe


def build_t5() -> Any:
    """A text encoder of width 16."""
    from transformers import T5Config, T5EncoderModel

    text = T5Config(
        vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0, eos_token_id=1
    )
    return T5EncoderModel(text).eval()


def build_tokenizer() -> Any:
    """One word, one token; two words are known."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "cat": 3, "dog": 4}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def build_wan_transformer(**changes: Any) -> Any:
    """Two layers, two heads of 16, cross attention to text of width 16."""
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        **{
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 16,
            "out_channels": 16,
            "text_dim": 16,
            "freq_dim": 16,
            "ffn_dim": 32,
            "num_layers": 2,
            **changes,
        }
    ).eval()


_SHORT = ("WanTransformer3DModel", "WanVACETransformer3DModel", "SkyReelsV2Transformer3DModel")


def text_of(pipe: Any) -> dict[str, Any]:
    """16 tokens of text instead of 512 for Wan, half of whose short generation they take.

    Not where cross attention also sees an image: diffusers takes all before the last 512 tokens for the image's.
    """
    transformer: Any = getattr(pipe, "transformer", None)
    short = type(transformer).__name__ in _SHORT
    return {"max_sequence_length": 16} if short and transformer.config.added_kv_proj_dim is None else {}


def run(pipe: Any, prompt: str = "cat", seed: int = 7, **overrides: Any) -> Any:
    """Frames of one short generation, (num_frames, height, width, 3)."""
    generator = torch.Generator("cpu").manual_seed(seed)
    given = {**SIZE, "guidance_scale": 3.0, "output_type": "np", "prompt": prompt, **overrides}
    arguments = {name: value for name, value in given.items() if value is not None}
    return pipe(generator=generator, **arguments).frames[0]


def run_to_latents(pipe: Any, **options: Any) -> Any:
    """Likewise without the autoencoder, which takes most of the time, and with few tokens of text."""
    return run(pipe, output_type="latent", **{**text_of(pipe), **options}).numpy()
