"""Which clips the transformer is trained on, and how they are kept: encoded, with their captions as tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from clips import Scenes, render_clips
from common import DEVICE, autocast
from diffusers import AutoencoderKLWan
from transformers import PreTrainedTokenizerFast

PROMPT_TOKENS = 64
"""Prompts are padded with zero vectors to as many tokens, which the model attends to; the preset says so, too."""
PIPELINE_TOKENS = 512
"""What a WanPipeline pads to that is not told otherwise: with it, a step on a small clip takes a third longer."""
_PIXELS_AT_ONCE = 120_000_000


@dataclass(frozen=True)
class Canvas:
    """Clips of one size.

    Attributes:
        batch: clips in a step.
        kept: encoded clips that are kept in memory.
        prompt_tokens: what prompts are padded to, each as often.
        weights: how often it is chosen, in the parts of the run that `PARTS` names.
    """

    frames: int
    side: int
    batch: int
    kept: int
    weights: tuple[float, ...]
    prompt_tokens: tuple[int, ...] = (PROMPT_TOKENS,)


PARTS = (0.06, 0.35, 1.0)
"""Until which share of the run each part goes: small clips first, then the default size, then all."""
_MOSTLY_SHORT = (PROMPT_TOKENS, PROMPT_TOKENS, PROMPT_TOKENS, PIPELINE_TOKENS)
CANVASES = (
    Canvas(17, 64, 256, 12_000, (1, 0, 0)),
    Canvas(33, 128, 48, 40_000, (0, 2, 1.2), prompt_tokens=_MOSTLY_SHORT),
    Canvas(17, 128, 96, 10_000, (0, 1, 0.4)),
    Canvas(25, 192, 24, 4_000, (0, 0, 0.5)),
    Canvas(45, 256, 10, 8_000, (0, 0.3, 2), prompt_tokens=_MOSTLY_SHORT),
)


@dataclass(frozen=True)
class Bank:
    """Encoded clips of one canvas with their captions as tokens.

    Attributes:
        latents: (clips, channels, frames, height, width) in bfloat16, standardised.
        tokens: (clips, captions, longest) of token numbers, 0 beyond a caption's end.
        none: (longest,), the tokens of no caption.
    """

    latents: torch.Tensor
    tokens: torch.Tensor
    none: torch.Tensor

    @classmethod
    def encode(
        cls,
        vae: AutoencoderKLWan,
        tokenizer: PreTrainedTokenizerFast,
        scenes: Scenes,
        canvas: Canvas,
        scale: float = 1.0,
    ) -> Bank:
        """Render and encode the first of the scenes."""
        count = max(canvas.batch, round(canvas.kept * scale))
        shape = (1, -1, 1, 1, 1)
        mean = torch.tensor(vae.config.latents_mean, device=DEVICE).view(shape)
        deviation = torch.tensor(vae.config.latents_std, device=DEVICE).view(shape)
        chunk = max(1, _PIXELS_AT_ONCE // (canvas.frames * canvas.side**2))
        latents = []
        with torch.no_grad(), autocast():
            for table in torch.split(scenes.table[:count], chunk):
                clips = render_clips(table.to(DEVICE), canvas.frames, canvas.side)
                latents.append(((vae.encode(clips).latent_dist.mean.float() - mean) / deviation).bfloat16())
        texts = [text for captions in scenes.captions[:count] for text in captions]
        tokens = tokenizer(["", *texts], padding=True, return_tensors="pt").input_ids.to(DEVICE)
        return cls(torch.cat(latents), tokens[1:].view(count, -1, tokens.shape[1]), tokens[0])
