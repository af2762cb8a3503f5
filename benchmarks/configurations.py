"""The configurations of published checkpoints, with which their models can be built without a hub.

Those of transformers and autoencoders are from the scripts of diffusers that converted the checkpoints (scripts/
convert_*_to_diffusers.py) and from the defaults of diffusers' classes, those of text and image encoders from the model
cards of UMT5-XXL, T5 v1.1-XXL, T5-11B, Llama 3 8B, CLIP-L and CLIP-H, Qwen2.5-VL-7B, ByT5-small, SigLIP so400m and
Gemma 3 12B. Of ByT5 the tokens that HunyuanVideo-1.5 adds for fonts and colours are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Part:
    """A component of a pipeline: its class in diffusers or transformers, and what that is configured with."""

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> torch.nn.Module:
        """With random weights, on torch's default device and in its default dtype."""
        import diffusers
        import diffusers.pipelines.ltx2
        import transformers

        for library in (diffusers, diffusers.pipelines.ltx2):
            if hasattr(library, self.kind):
                made: torch.nn.Module = getattr(library, self.kind)(**self.config)
                return made.eval()
        kind = getattr(transformers, self.kind)
        made = kind(kind.config_class(**self.config))
        return made.eval()

    def count(self) -> int:
        """How many parameters it has; nothing is allocated."""
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in self.build().parameters())


def _wan(heads: int, layers: int, ffn: int, kind: str = "WanTransformer3DModel", **more: Any) -> Part:
    return Part(
        kind, {"num_attention_heads": heads, "attention_head_dim": 128, "num_layers": layers, "ffn_dim": ffn, **more}
    )


_T5: dict[str, Any] = {
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_heads": 64,
    "num_layers": 24,
    "feed_forward_proj": "gated-gelu",
}
UMT5_XXL = Part("UMT5EncoderModel", {**_T5, "vocab_size": 256384})
T5_XXL = Part("T5EncoderModel", {**_T5, "vocab_size": 32128})
T5_11B = Part(
    "T5EncoderModel",
    {"d_model": 1024, "d_ff": 65536, "d_kv": 128, "num_heads": 128, "num_layers": 24, "vocab_size": 32128},
)
BYT5_SMALL = Part(
    "T5EncoderModel", {**_T5, "d_model": 1472, "d_ff": 3584, "num_heads": 6, "num_layers": 12} | {"vocab_size": 384}
)
LLAMA_3_8B = Part(
    "LlamaModel",
    {
        "vocab_size": 128320,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
)
CLIP_L = Part(
    "CLIPTextModel",
    {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
)
_CLIP_H: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
CLIP_H = Part("CLIPVisionModel", _CLIP_H)
LLAVA_LLAMA_3_8B = Part(
    "LlavaForConditionalGeneration",
    {
        "text_config": {"model_type": "llama", **LLAMA_3_8B.config},
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 768,
        },
    },
)
_QWEN: dict[str, Any] = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
QWEN_2_5_VL_TEXT = Part("Qwen2_5_VLTextModel", _QWEN)
_SIGLIP: dict[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
}
SIGLIP = Part("SiglipVisionModel", {**_SIGLIP, "image_size": 384})
GEMMA_3_12B = Part(
    "Gemma3ForConditionalGeneration",
    {
        "text_config": {
            "vocab_size": 262208,
            "hidden_size": 3840,
            "intermediate_size": 15360,
            "num_hidden_layers": 48,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 256,
        },
        "vision_config": {**_SIGLIP, "image_size": 896},
    },
)

WAN_VAE = Part("AutoencoderKLWan")
WAN_2_2_VAE = Part(
    "AutoencoderKLWan",
    {
        "base_dim": 160,
        "decoder_base_dim": 256,
        "z_dim": 48,
        "dim_mult": [1, 2, 4, 4],
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_spatial": 16,
    },
)

WAN_1_3B = _wan(12, 30, 8960)
WAN_14B = _wan(40, 40, 13824)
WAN_I2V_14B = _wan(40, 40, 13824, in_channels=36, image_dim=1280, added_kv_proj_dim=5120)
WAN_2_2_I2V_14B = _wan(40, 40, 13824, in_channels=36)
WAN_5B = _wan(24, 30, 14336, in_channels=48, out_channels=48)
WAN_VACE_1_3B = _wan(12, 30, 8960, "WanVACETransformer3DModel", vace_layers=list(range(0, 30, 2)))
WAN_VACE_14B = _wan(40, 40, 13824, "WanVACETransformer3DModel", vace_layers=list(range(0, 40, 5)))
_SKYREELS = "SkyReelsV2Transformer3DModel"
SKYREELS_DF_1_3B = _wan(12, 30, 8960, _SKYREELS, inject_sample_info=True)
SKYREELS_DF_14B = _wan(40, 40, 13824, _SKYREELS, inject_sample_info=True)
SKYREELS_14B = _wan(40, 40, 13824, _SKYREELS)
SKYREELS_I2V_1_3B = _wan(12, 30, 8960, _SKYREELS, in_channels=36, image_dim=1280, added_kv_proj_dim=1536)
SKYREELS_I2V_14B = _wan(40, 40, 13824, _SKYREELS, in_channels=36, image_dim=1280, added_kv_proj_dim=5120)
HUNYUAN_VIDEO = Part("HunyuanVideoTransformer3DModel")
_HUNYUAN_KIND = "HunyuanVideoTransformer3DModel"
HUNYUAN_VIDEO_I2V = Part(_HUNYUAN_KIND, {"image_condition_type": "token_replace"})
HUNYUAN_VIDEO_I2V_33 = Part(
    _HUNYUAN_KIND, {"image_condition_type": "latent_concat", "in_channels": 33, "guidance_embeds": False}
)
HUNYUAN_VIDEO_1_5 = Part("HunyuanVideo15Transformer3DModel")
LTX_2B = Part("LTXVideoTransformer3DModel")
LTX_13B = Part("LTXVideoTransformer3DModel", {"num_layers": 48, "attention_head_dim": 128, "cross_attention_dim": 4096})
LTX_2 = Part("LTX2VideoTransformer3DModel")
COGVIDEOX_2B = Part("CogVideoXTransformer3DModel")
_COG_5B: dict[str, Any] = {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True}
COGVIDEOX_5B = Part("CogVideoXTransformer3DModel", _COG_5B)
COGVIDEOX_5B_I2V = Part(
    "CogVideoXTransformer3DModel", {**_COG_5B, "in_channels": 32, "use_learned_positional_embeddings": True}
)
_COG_1_5: dict[str, Any] = {
    **_COG_5B,
    "patch_size_t": 2,
    "patch_bias": False,
    "sample_height": 300,
    "sample_width": 300,
    "sample_frames": 81,
}
COGVIDEOX_1_5_5B = Part("CogVideoXTransformer3DModel", _COG_1_5)
COGVIDEOX_1_5_5B_I2V = Part("CogVideoXTransformer3DModel", {**_COG_1_5, "in_channels": 32, "ofs_embed_dim": 512})
MOCHI = Part("MochiTransformer3DModel")


def _cosmos(heads: int, layers: int, in_channels: int, learnable: bool) -> Part:
    return Part(
        "CosmosTransformer3DModel",
        {
            "num_attention_heads": heads,
            "num_layers": layers,
            "in_channels": in_channels,
            "extra_pos_embed_type": "learnable" if learnable else None,
        },
    )


_WAN_PARTS = {"text_encoder": UMT5_XXL, "vae": WAN_VAE}
_WAN_IMAGE = {**_WAN_PARTS, "image_encoder": CLIP_H}
_HUNYUAN = {"text_encoder": LLAMA_3_8B, "text_encoder_2": CLIP_L, "vae": Part("AutoencoderKLHunyuanVideo")}
_HUNYUAN_1_5 = {
    "transformer": HUNYUAN_VIDEO_1_5,
    "text_encoder": QWEN_2_5_VL_TEXT,
    "text_encoder_2": BYT5_SMALL,
    "vae": Part("AutoencoderKLHunyuanVideo15"),
}
_COG = {"text_encoder": T5_XXL, "vae": Part("AutoencoderKLCogVideoX")}
_COSMOS = {"text_encoder": T5_11B, "vae": Part("AutoencoderKLCosmos")}
_COSMOS_2 = {"text_encoder": T5_11B, "vae": WAN_VAE}

MODELS: dict[str, dict[str, Part]] = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": {"transformer": WAN_1_3B, **_WAN_PARTS},
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": {"transformer": WAN_14B, **_WAN_PARTS},
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": {"transformer": WAN_I2V_14B, **_WAN_IMAGE},
    "Wan-AI/Wan2.1-VACE-1.3B-diffusers": {"transformer": WAN_VACE_1_3B, **_WAN_PARTS},
    "Wan-AI/Wan2.1-VACE-14B-diffusers": {"transformer": WAN_VACE_14B, **_WAN_PARTS},
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": {"transformer": WAN_14B, "transformer_2": WAN_14B, **_WAN_PARTS},
    "Wan-AI/Wan2.2-I2V-A14B-Diffusers": {
        "transformer": WAN_2_2_I2V_14B,
        "transformer_2": WAN_2_2_I2V_14B,
        **_WAN_PARTS,
    },
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": {"transformer": WAN_5B, "text_encoder": UMT5_XXL, "vae": WAN_2_2_VAE},
    "Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers": {"transformer": SKYREELS_DF_1_3B, **_WAN_PARTS},
    "Skywork/SkyReels-V2-DF-14B-540P-Diffusers": {"transformer": SKYREELS_DF_14B, **_WAN_PARTS},
    "Skywork/SkyReels-V2-T2V-14B-540P-Diffusers": {"transformer": SKYREELS_14B, **_WAN_PARTS},
    "Skywork/SkyReels-V2-I2V-1.3B-540P-Diffusers": {"transformer": SKYREELS_I2V_1_3B, **_WAN_IMAGE},
    "Skywork/SkyReels-V2-I2V-14B-540P-Diffusers": {"transformer": SKYREELS_I2V_14B, **_WAN_IMAGE},
    "hunyuanvideo-community/HunyuanVideo": {"transformer": HUNYUAN_VIDEO, **_HUNYUAN},
    "hunyuanvideo-community/HunyuanVideo-I2V": {
        **_HUNYUAN,
        "transformer": HUNYUAN_VIDEO_I2V,
        "text_encoder": LLAVA_LLAMA_3_8B,
    },
    "hunyuanvideo-community/HunyuanVideo-I2V-33ch": {
        **_HUNYUAN,
        "transformer": HUNYUAN_VIDEO_I2V_33,
        "text_encoder": LLAVA_LLAMA_3_8B,
    },
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v": _HUNYUAN_1_5,
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v": {**_HUNYUAN_1_5, "image_encoder": SIGLIP},
    "Lightricks/LTX-Video": {"transformer": LTX_2B, "text_encoder": T5_XXL, "vae": Part("AutoencoderKLLTXVideo")},
    "Lightricks/LTX-Video-0.9.7-dev": {"transformer": LTX_13B, "text_encoder": T5_XXL},
    "Lightricks/LTX-2": {
        "transformer": LTX_2,
        "text_encoder": GEMMA_3_12B,
        "connectors": Part("LTX2TextConnectors"),
        "vae": Part("AutoencoderKLLTX2Video"),
        "audio_vae": Part("AutoencoderKLLTX2Audio"),
        "vocoder": Part("LTX2Vocoder"),
    },
    "THUDM/CogVideoX-2b": {"transformer": COGVIDEOX_2B, **_COG},
    "THUDM/CogVideoX-5b": {"transformer": COGVIDEOX_5B, **_COG},
    "THUDM/CogVideoX-5b-I2V": {"transformer": COGVIDEOX_5B_I2V, **_COG},
    "THUDM/CogVideoX1.5-5B": {"transformer": COGVIDEOX_1_5_5B, **_COG},
    "THUDM/CogVideoX1.5-5B-I2V": {"transformer": COGVIDEOX_1_5_5B_I2V, **_COG},
    "genmo/mochi-1-preview": {"transformer": MOCHI, "text_encoder": T5_XXL, "vae": Part("AutoencoderKLMochi")},
    "nvidia/Cosmos-1.0-Diffusion-7B-Text2World": {"transformer": _cosmos(32, 28, 16, True), **_COSMOS},
    "nvidia/Cosmos-1.0-Diffusion-14B-Text2World": {"transformer": _cosmos(40, 36, 16, True), **_COSMOS},
    "nvidia/Cosmos-1.0-Diffusion-7B-Video2World": {"transformer": _cosmos(32, 28, 17, True), **_COSMOS},
    "nvidia/Cosmos-1.0-Diffusion-14B-Video2World": {"transformer": _cosmos(40, 36, 17, True), **_COSMOS},
    "nvidia/Cosmos-Predict2-2B-Video2World": {"transformer": _cosmos(16, 28, 17, False), **_COSMOS_2},
    "nvidia/Cosmos-Predict2-14B-Video2World": {"transformer": _cosmos(40, 36, 17, False), **_COSMOS_2},
    "nvidia/ChronoEdit-14B-Diffusers": {
        "transformer": _wan(
            40, 40, 13824, "ChronoEditTransformer3DModel", in_channels=36, image_dim=1280, added_kv_proj_dim=5120
        ),
        **_WAN_IMAGE,
    },
    "BestWishYsh/Helios-Base": {"transformer": Part("HeliosTransformer3DModel"), **_WAN_PARTS},
}
"""By the name of a preset, those components of its pipeline whose configuration is known."""
