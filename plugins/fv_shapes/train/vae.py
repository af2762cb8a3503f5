"""Train the video autoencoder on rendered scenes: python train/vae.py --output runs/vae --minutes 15."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import click
import torch
from common import DEVICE, Optimiser, Rate, autocast, log, random_scenes_and_clips, warmup_then_cosine
from diffusers import AutoencoderKLWan

LATENT_CHANNELS = 32
CLIPS = ((5, 64, 2.0), (17, 64, 0.6), (33, 64, 0.3), (9, 128, 0.4), (17, 128, 0.2))
"""Frames, side and share of the batch size of the clips; the networks are convolutional and serve every size."""


def build() -> AutoencoderKLWan:
    """Quarter-size pixels by space-to-depth, then two halvings of space and time: 16x16 pixels, 4 frames a latent."""
    return AutoencoderKLWan(
        base_dim=16,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        in_channels=48,
        out_channels=48,
        patch_size=4,
        scale_factor_spatial=16,
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    )


def loss_of(vae: AutoencoderKLWan, clips: torch.Tensor, kl_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """L1 and squared error on pixels, L1 on their differences (edges, motion), and the usual KL term."""
    posterior = vae.encode(clips).latent_dist
    error = vae.decode(posterior.sample()).sample.float() - clips
    pixels = error.abs().mean() + 4 * error.square().mean()
    edges = sum(error.diff(dim=axis).abs().mean() for axis in (2, 3, 4))
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().mean()
    return pixels + 0.5 * edges + kl_weight * kl, error.square().mean()


@torch.no_grad()
def standardise(vae: AutoencoderKLWan, rng: Random) -> None:
    """Store each latent channel's mean and deviation in the configuration, as WanPipeline expects."""
    latents = []
    for frames, side in ((17, 64), (33, 128), (45, 128)):
        for _ in range(24):
            mean = vae.encode(random_scenes_and_clips(rng, 1, frames, side)[1]).latent_dist.mean
            latents.append(mean.transpose(0, 1).flatten(1))
    values = torch.cat(latents, dim=1)
    vae.register_to_config(
        latents_mean=[round(v, 4) for v in values.mean(1).tolist()],
        latents_std=[round(v, 4) for v in values.std(1).tolist()],
    )


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder for the trained autoencoder.")
@click.option("--resume", type=click.Path(path_type=Path, exists=True), help="Start from a trained autoencoder.")
@click.option("--minutes", default=7.0, show_default=True, help="Length of the training.")
@click.option("--batch", default=8, show_default=True, help="Clips of 9 frames of 64x64, or as much work in others.")
@click.option("--learning-rate", default=6e-3, show_default=True)
@click.option("--kl-weight", default=5e-4, show_default=True)
@click.option(
    "--decoder-only", is_flag=True, help="Sharpen the decoder; latents, and transformers on them, stay valid."
)
@click.option("--seed", default=0, show_default=True)
def main(
    output: Path,
    resume: Path | None,
    minutes: float,
    batch: int,
    learning_rate: float,
    kl_weight: float,
    decoder_only: bool,
    seed: int,
) -> None:
    """Train, report the reconstruction's PSNR, and save in diffusers' format."""
    torch.manual_seed(seed)
    rng = Random(seed)
    vae = (AutoencoderKLWan.from_pretrained(resume) if resume else build()).to(DEVICE)
    log(f"autoencoder: {sum(p.numel() for p in vae.parameters()):,} parameters")
    if decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    optimiser = Optimiser(vae.parameters(), learning_rate)
    rate = Rate()
    start, step = time.monotonic(), 0
    while (done := (time.monotonic() - start) / (60 * minutes)) < 1:
        frames, side, share = rng.choice(CLIPS)
        _, clips = random_scenes_and_clips(rng, max(1, round(batch * share)), frames, side)
        with autocast():
            loss, squared = loss_of(vae, clips, kl_weight)
        optimiser.step(loss, warmup_then_cosine(done, step))
        step += 1
        rate.add(loss=loss.item(), psnr=-10 * torch.log10(squared.detach() / 4).item())
        if step % 100 == 0:
            log(f"step {step} {100 * done:.0f} % {rate}")
        if step % 500 == 0:
            vae.save_pretrained(output)
    if not decoder_only:
        standardise(vae, rng)
    vae.save_pretrained(output)
    log(f"saved {output}")


if __name__ == "__main__":
    main()
