"""The video autoencoder and its training on rendered scenes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import torch
from clips import render_clips
from common import DEVICE, Average, Captured, Log, Optimiser, autocast, warmup_then_cosine
from diffusers import AutoencoderKLWan

LATENT_CHANNELS = 32
CLIPS = {(5, 64, 192): 1.0, (9, 64, 115): 1.5, (9, 128, 38): 1.5, (17, 128, 19): 0.5, (33, 128, 12): 0.3}
"""Frames, side and batch size of the clips, and how often they are chosen; the networks serve every size."""
MEASURED = ((33, 128), (45, 256))
_KL_WEIGHT = 5e-4
_JITTER = 0.2


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


class AutoencoderTraining:
    """Trains for a time, and goes on from its state.

    Args:
        table: scenes, as `clips.Scenes` has them, on the device.
        scale: share of the batch sizes; below 1 to try the script on a CPU.
    """

    def __init__(self, table: torch.Tensor, learning_rate: float, scale: float = 1.0) -> None:
        self._vae = build().to(DEVICE)
        self._average = Average(self._vae)
        self._optimiser = Optimiser(self._vae.parameters(), learning_rate)
        self._table = table
        self._steps = {
            (frames, side): Captured(partial(self._step, frames, side, max(1, round(batch * scale))))
            for frames, side, batch in CLIPS
        }
        self.spent, self.steps = 0.0, 0

    @property
    def averaged(self) -> AutoencoderKLWan:
        """The autoencoder with averaged weights."""
        return self._average.model

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        models = {"model": self._vae.state_dict(), "average": self._average.model.state_dict()}
        return {**models, "optimiser": self._optimiser.state(), "spent": self.spent, "steps": self.steps}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._vae.load_state_dict(state["model"])
        self._average.model.load_state_dict(state["average"])
        self._optimiser.load(state["optimiser"])
        self.spent, self.steps = state["spent"], state["steps"]

    def run(self, minutes: float, rng: Random, log: Log, may_go_on: Callable[[], bool]) -> bool:
        """Train until `minutes` are spent in all; whether that is so, or it was stopped before."""
        while (done := self.spent / (60 * minutes)) < 1:
            if not may_go_on():
                return False
            begin = time.monotonic()
            for _ in range(20):
                self._optimiser.share.fill_(warmup_then_cosine(done, self.steps))
                self._average.rate.fill_(max(1 / 400, 1 / (1 + self.steps / 4)))
                results = self._steps[rng.choices(list(CLIPS), list(CLIPS.values()))[0][:2]]()
                self.steps += 1
            values = {name: float(value) for name, value in results.items()}
            self.spent += time.monotonic() - begin
            if self.steps % 200 == 0:
                log.write("autoencoder", "", {"steps": self.steps, "done": done, **values})
        return True

    def _step(self, frames: int, side: int, batch: int) -> dict[str, torch.Tensor]:
        table = self._table[torch.randint(len(self._table), (batch,), device=DEVICE)]
        moved = table[..., 3:5] + _JITTER * (2 * torch.rand(batch, 1, 2, device=DEVICE) - 1)
        clips = render_clips(torch.cat([table[..., :3], moved, table[..., 5:]], dim=-1), frames, side)
        with autocast():
            loss, squared = loss_of(self._vae, clips)
        self._optimiser.step(loss)
        self._average.follow()
        return {"loss": loss.detach(), "psnr": -10 * torch.log10(squared.detach() / 4)}


def loss_of(vae: AutoencoderKLWan, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """L1 and squared error on pixels, L1 on their differences (edges, motion), and the usual KL term."""
    posterior = vae.encode(clips).latent_dist
    error = vae.decode(posterior.sample()).sample.float() - clips
    pixels = error.abs().mean() + 4 * error.square().mean()
    edges = sum(error.diff(dim=axis).abs().mean() for axis in (2, 3, 4))
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().mean()
    return pixels + 0.5 * edges + _KL_WEIGHT * kl, error.square().mean()


@torch.no_grad()
def standardise(vae: AutoencoderKLWan, table: torch.Tensor) -> None:
    """Store each latent channel's mean and deviation in the configuration, as WanPipeline expects."""
    latents = []
    for part, (frames, side) in zip(table.chunk(3), ((17, 64), (33, 128), (45, 128)), strict=True):
        mean = vae.encode(render_clips(part, frames, side)).latent_dist.mean
        latents.append(mean.transpose(0, 1).flatten(1))
    values = torch.cat(latents, dim=1)
    vae.register_to_config(
        latents_mean=[round(v, 4) for v in values.mean(1).tolist()],
        latents_std=[round(v, 4) for v in values.std(1).tolist()],
    )


@torch.no_grad()
def psnr(vae: AutoencoderKLWan, table: torch.Tensor, frames: int, side: int) -> tuple[float, float]:
    """Mean and least PSNR of reconstructed clips, in dB."""
    found = []
    for one in torch.split(table, 4):
        rendered = render_clips(one, frames, side)
        decoded = vae.decode(vae.encode(rendered).latent_dist.mean).sample.clamp(-1, 1)
        found.append(-10 * torch.log10((decoded - rendered).square().mean(dim=(1, 2, 3, 4)) / 4))
    values = torch.cat(found)
    return float(values.mean()), float(values.min())
