"""Real models of diffusers and transformers with configurations small enough for tests."""

from __future__ import annotations

from typing import Any

import torch

SIZE = {"height": 32, "width": 48, "num_frames": 9, "num_inference_steps": 3}
"""What the small pipeline is called with: a 3x2x3 grid of tokens."""


def build_wan_pipeline(seed: int = 0, experts: int = 1) -> Any:
    """A WanPipeline with random weights: two layers, two heads of 16. With two experts it is a Wan 2.2."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    torch.manual_seed(seed)
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "cat": 3, "dog": 4}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    text = UMT5Config(
        vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0, eos_token_id=1
    )
    return WanPipeline(
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
        ),
        text_encoder=UMT5EncoderModel(text).eval(),
        vae=AutoencoderKLWan(
            base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        ).eval(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=build_wan_transformer(),
        transformer_2=build_wan_transformer() if experts == 2 else None,
        boundary_ratio=0.8 if experts == 2 else None,
    )


def build_wan_transformer() -> Any:
    """Two layers, two heads of 16, cross attention to text of width 16."""
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=16,
        out_channels=16,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
    ).eval()


def run(pipe: Any, prompt: str = "cat", seed: int = 7, **overrides: Any) -> Any:
    """Frames of one short generation, (num_frames, height, width, 3)."""
    generator = torch.Generator("cpu").manual_seed(seed)
    arguments = {**SIZE, "guidance_scale": 3.0, **overrides}
    return pipe(prompt=prompt, generator=generator, output_type="np", **arguments).frames[0]
