"""Train the text encoder and the transformer by flow matching: python train/transformer.py --vae runs/vae …."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import click
import torch
from assemble import save_pipeline
from common import DEVICE, Optimiser, Rate, autocast, log, random_scenes_and_clips, warmup_then_cosine
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from fv_shapes.captions import caption
from fv_shapes.scenes import Scene
from tokens import build_tokenizer
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

TEXT_WIDTH = 128


@dataclass(frozen=True)
class Stage:
    """A part of the run: until which share of it, on which clips, and how long prompts are padded.

    `clips` lists (frames, side, batch size, clips kept in memory). WanPipeline pads prompts with zero vectors to 512
    tokens, which cost as much as the video on small clips: the first stage pads less.
    """

    until: float
    clips: tuple[tuple[int, int, int, int], ...]
    prompt_tokens: int


STAGES = {
    "cpu": (
        Stage(0.45, ((17, 64, 40, 5000),), 64),
        Stage(0.85, ((17, 128, 12, 1000), (33, 128, 8, 1200)), 512),
        Stage(1.00, ((33, 128, 8, 1200), (33, 128, 8, 1200), (17, 128, 12, 1000), (45, 256, 1, 60)), 512),
    ),
    "large-canvas": (Stage(1.00, ((45, 256, 2, 100), (17, 256, 4, 250), (25, 192, 5, 300), (33, 128, 8, 1000)), 512),),
    "gpu": (
        Stage(0.35, ((17, 64, 256, 20000),), 64),
        Stage(0.80, ((17, 128, 128, 6000), (33, 128, 64, 6000)), 512),
        Stage(1.00, ((33, 128, 64, 6000), (45, 256, 12, 800), (25, 192, 32, 1000)), 512),
    ),
}


def build() -> tuple[UMT5EncoderModel, WanTransformer3DModel]:
    """A text encoder of two layers and a Wan transformer of five, four heads of size 64."""
    text_encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=96,
            d_model=TEXT_WIDTH,
            d_kv=32,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    transformer = WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=4,
        attention_head_dim=64,
        in_channels=32,
        out_channels=32,
        text_dim=TEXT_WIDTH,
        freq_dim=256,
        ffn_dim=640,
        num_layers=5,
    )
    torch.nn.init.zeros_(transformer.proj_out.weight)
    return text_encoder, transformer


class Bank:
    """Encoded clips of one canvas, with the scenes to caption anew at each use."""

    def __init__(self, vae: AutoencoderKLWan, frames: int, side: int, count: int, rng: Random) -> None:
        mean = torch.tensor(vae.config.latents_mean, device=DEVICE).view(1, -1, 1, 1, 1)
        deviation = torch.tensor(vae.config.latents_std, device=DEVICE).view(1, -1, 1, 1, 1)
        self.scenes: list[Scene] = []
        latents = []
        chunk = max(1, min(count, 16 * 64 * 64 * 17 // (frames * side * side)))
        with torch.no_grad(), autocast():
            while len(self.scenes) < count:
                scenes, clips = random_scenes_and_clips(rng, chunk, frames, side)
                latents.append(((vae.encode(clips).latent_dist.mean.float() - mean) / deviation).to(torch.bfloat16))
                self.scenes += scenes
        self.latents = torch.cat(latents)

    def batch(self, size: int, rng: Random) -> tuple[torch.Tensor, list[str]]:
        chosen = rng.sample(range(len(self.scenes)), size)
        return self.latents[chosen].float(), [caption(self.scenes[index], rng) for index in chosen]


def encode_prompts(
    tokenizer: PreTrainedTokenizerFast, text_encoder: UMT5EncoderModel, prompts: list[str], length: int
) -> torch.Tensor:
    """What WanPipeline does with prompts: hidden states, zero beyond the prompt, padded to `length` tokens."""
    inputs = tokenizer(prompts, padding=True, return_tensors="pt").to(DEVICE)
    hidden = text_encoder(inputs.input_ids, inputs.attention_mask).last_hidden_state
    hidden = hidden * inputs.attention_mask[..., None]
    return torch.nn.functional.pad(hidden, (0, 0, 0, length - hidden.shape[1]))


def noise_levels(count: int, side: int) -> torch.Tensor:
    """Logit-normal levels, shifted by 3 as at sampling time: what a scene is, is decided at high noise.

    A larger canvas shows the same shape in more tokens, so it stays visible under more noise: the shift grows with the
    side of the latents, as Esser et al. 2024 (Stable Diffusion 3, section 5.3.2) derive it.
    """
    shift = 3 * max(1.0, side / 8)
    level = torch.sigmoid(torch.randn(count, device=DEVICE))
    return shift * level / (1 + (shift - 1) * level)


def flow_matching_loss(
    transformer: WanTransformer3DModel, latents: torch.Tensor, prompt_embeds: torch.Tensor
) -> torch.Tensor:
    """Mean squared error of the predicted velocity, noise minus data (Lipman et al. 2023; Liu et al. 2023)."""
    noise = torch.randn_like(latents)
    level = noise_levels(len(latents), latents.shape[-1])
    mixed = latents + level.view(-1, 1, 1, 1, 1) * (noise - latents)
    predicted = transformer(mixed, level * 1000, prompt_embeds, return_dict=False)[0].float()
    loss: torch.Tensor = (predicted - (noise - latents)).square().mean()
    return loss


@torch.no_grad()
def follow(averages: list[torch.nn.Module], models: list[torch.nn.Module], step: int) -> None:
    """Move the averaged weights towards the trained ones; quickly at first, by 1/500 a step later."""
    weight = max(1 / 500, 1 / (1 + step / 4))
    for average, model in zip(averages, models, strict=True):
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), weight)


@click.command()
@click.option("--vae", "vae_folder", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder for the whole pipeline.")
@click.option("--resume", type=click.Path(path_type=Path, exists=True), help="Start from a saved pipeline.")
@click.option("--minutes", default=9.0, show_default=True, help="Length of the training, encoding of clips apart.")
@click.option("--skip", default=0.0, show_default=True, help="Begin at this share of the run, when resuming.")
@click.option("--learning-rate", default=4e-3, show_default=True)
@click.option(
    "--stages",
    type=click.Choice(list(STAGES)),
    default="gpu" if DEVICE.type == "cuda" else "cpu",
    help="Which clips to train on; 'large-canvas' is for resuming on a CPU.",
)
@click.option("--seed", default=0, show_default=True)
def main(
    vae_folder: Path,
    output: Path,
    resume: Path | None,
    minutes: float,
    skip: float,
    learning_rate: float,
    stages: str,
    seed: int,
) -> None:
    """Train, keep an average of the weights, and save a pipeline that WanPipeline loads."""
    torch.manual_seed(seed)
    rng = Random(seed)
    vae = AutoencoderKLWan.from_pretrained(vae_folder).to(DEVICE).eval()
    tokenizer = build_tokenizer()
    text_encoder, transformer = build()
    if resume:
        text_encoder = UMT5EncoderModel.from_pretrained(resume / "text_encoder", dtype=torch.float32)
        transformer = WanTransformer3DModel.from_pretrained(resume / "transformer", dtype=torch.float32)
    models = [text_encoder.to(DEVICE).train(), transformer.to(DEVICE).train()]
    averages = [copy.deepcopy(model).eval() for model in models]
    for model in models:
        log(f"{type(model).__name__}: {sum(p.numel() for p in model.parameters()):,} parameters")
    optimiser = Optimiser([p for model in models for p in model.parameters()], learning_rate)
    banks: dict[tuple[int, int], Bank] = {}
    rate = Rate()
    spent, step = skip * 60 * minutes, 0
    while (done := spent / (60 * minutes)) < 1:
        stage = next(stage for stage in STAGES[stages] if done < stage.until)
        frames, side, size, kept = rng.choice(stage.clips)
        if (frames, side) not in banks:
            begin = time.monotonic()
            banks[frames, side] = Bank(vae, frames, side, kept, rng)
            log(f"encoded {kept} clips of {frames} frames of {side}x{side} in {time.monotonic() - begin:.0f} s")
        begin = time.monotonic()
        latents, prompts = banks[frames, side].batch(size, rng)
        prompts = ["" if rng.random() < 0.1 else prompt for prompt in prompts]
        with autocast():
            embeds = encode_prompts(tokenizer, text_encoder, prompts, stage.prompt_tokens)
            loss = flow_matching_loss(transformer, latents, embeds)
        optimiser.step(loss, warmup_then_cosine(done, step))
        follow(averages, models, step)
        step += 1
        rate.add(**{"loss": loss.item(), f"loss_{frames}x{side}": loss.item()})
        spent += time.monotonic() - begin
        if step % 100 == 0:
            log(f"step {step} {100 * done:.0f} % {rate}")
        if step % 300 == 0:
            save_pipeline(output, vae, tokenizer, *averages)
    save_pipeline(output, vae, tokenizer, *averages)
    log(f"saved {output}")


if __name__ == "__main__":
    main()
