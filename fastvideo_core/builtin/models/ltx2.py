"""LTX-2: a video and an audio stream in one list of blocks, which attend to text and to one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from fastvideo_core.contract.attention import Role, TokenLayout
from fastvideo_core.contract.caching import Signal
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.model import AttentionSite, BlockStack, Geometry, ModelFamily
from fastvideo_core.errors import UnsupportedModelError

if TYPE_CHECKING:
    import torch

api_version = API_VERSION

_ROLES = {
    "attn1": Role.SELF,
    "audio_attn1": Role.AUDIO,
    "attn2": Role.CROSS,
    "audio_attn2": Role.AUDIO,
    "audio_to_video_attn": Role.AUDIO,
    "video_to_audio_attn": Role.AUDIO,
}
"""A block's attention in the order in which it runs. All of AUDIO has the audio stream's heads, also from the video."""


def _attentions(transformer: torch.nn.Module) -> Iterator[AttentionSite]:
    for block in cast("torch.nn.ModuleList", transformer.transformer_blocks):
        for name, role in _ROLES.items():
            module = cast("torch.nn.Module", getattr(block, name))
            yield AttentionSite(module, role, video_keys=name == "video_to_audio_attn")


def _heads(config: Mapping[str, Any], role: Role) -> tuple[int, int]:
    stream = "audio_" if role is Role.AUDIO else ""
    return config[f"{stream}num_attention_heads"], config[f"{stream}attention_head_dim"]


def _token_layout(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> TokenLayout:
    """The grid is told beside the packed latents; keyframes and reference videos stand behind it."""
    frames, height, width = (arguments.get(name) for name in ("num_frames", "height", "width"))
    if frames is None or height is None or width is None:
        raise UnsupportedModelError(
            f"this call of the {LTX2.transformer} tells no num_frames, height and width, so {LTX2.name} has no grid to "
            "tell of; give them, or run it without fastvideo-core"
        )
    patch, patch_time = config["patch_size"], config["patch_size_t"]
    grid = (frames // patch_time, height // patch, width // patch)
    return TokenLayout(grid, text_after=arguments["hidden_states"].shape[1] - grid[0] * grid[1] * grid[2])


def _idle(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> Iterator[str]:
    """What a pass of spatio-temporal guidance, or of guidance by isolated modalities, leaves out."""
    if arguments.get("isolate_modalities"):
        for block in range(config["num_layers"]):
            yield f"transformer_blocks.{block}.audio_to_video_attn"
            yield f"transformer_blocks.{block}.video_to_audio_attn"
    mask = arguments.get("perturbation_mask")
    if config.get("perturbed_attn") and (mask is None or not mask.any()):
        for block in arguments.get("spatio_temporal_guidance_blocks") or ():
            yield f"transformer_blocks.{block}.attn1"
            yield f"transformer_blocks.{block}.audio_attn1"


def _geometry(transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    halvings = sum(vae.get("spatio_temporal_scaling", (True, True, True, True)))
    pixels = vae.get("spatial_compression_ratio") or vae.get("patch_size", 4) * 2**halvings
    frames = vae.get("temporal_compression_ratio") or vae.get("patch_size_t", 1) * 2**halvings
    return Geometry(
        (pixels * transformer["patch_size"],) * 2, frames, None, latents_per_token=transformer["patch_size_t"]
    )


_TIME_EMBEDDING = ("time_embed.emb.time_proj", "time_embed.emb.timestep_embedder")

LTX2 = ModelFamily(
    name="LTX-2",
    transformer="LTX2VideoTransformer3DModel",
    pipelines=frozenset({"LTX2Pipeline", "LTX2ImageToVideoPipeline"}),
    image_pipelines=frozenset({"LTX2ImageToVideoPipeline"}),
    attentions=_attentions,
    token_layout=_token_layout,
    geometry=_geometry,
    stack=BlockStack(
        lists=("transformer_blocks",),
        modulation=4,
        more_modulation=(6, 8),
        modulation_per_token=3,
        rotary=12,
        more_rotary=(14,),
        rotary_axis=-2,
        second_stream=True,
        counted=True,
    ),
    roles=(Role.SELF, Role.CROSS, Role.AUDIO),
    heads=_heads,
    idle=_idle,
    frame_rate_argument="frame_rate",
    text_mask="encoder_attention_mask",
    time_signals={
        Signal.TIME_EMBEDDING: _TIME_EMBEDDING,
        Signal.TIME_PROJECTION: (*_TIME_EMBEDDING, "time_embed.silu", "time_embed.linear"),
    },
    shared_by_sequence=True,
)


@hookimpl
def fastvideo_model_families() -> list[ModelFamily]:
    """Every model with this transformer."""
    return [LTX2]
