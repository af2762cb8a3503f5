"""The text encoder and the transformer, and their training by flow matching on encoded clips."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from assemble import save_pipeline
from bank import CANVASES, PARTS, Bank, Canvas
from clips import Scenes
from common import DEVICE, Average, Captured, Log, Optimiser, autocast, warmup_then_cosine
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from tokens import build_tokenizer
from transformers import UMT5Config, UMT5EncoderModel

TEXT_WIDTH = 128
_DROPPED = 0.1
"""Share of captions that are left out, for guidance."""
_LEAST_DEVIATION = 0.05
"""Of a latent channel that carries something; here all others have 0.01 or less, and these 0.6 or more."""
_INDUCTOR = {"triton.persistent_reductions": False}
"""Without them a step takes 12.3 ms instead of 15.0 on an H100: the gradient of RMSNorm and rotary embedding spills."""


def build() -> tuple[UMT5EncoderModel, WanTransformer3DModel]:
    """A text encoder of two layers and a Wan transformer of seven, four heads of size 64."""
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
        ffn_dim=512,
        num_layers=7,
    )
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.zeros_(transformer.proj_out.bias)
    return text_encoder, transformer


class TransformerTraining:
    """Trains for a time, and goes on from its state.

    Args:
        scenes: what the clips show.
        scale: share of the batch sizes and of the clips; below 1 to try the script on a CPU.
    """

    def __init__(self, vae: AutoencoderKLWan, scenes: Scenes, learning_rate: float, scale: float = 1.0) -> None:
        self._vae, self._scenes, self._scale = vae, scenes, scale
        self._tokenizer = build_tokenizer()
        self._text_encoder, self._transformer = (model.to(DEVICE).train() for model in build())
        self._live = live_channels(vae)
        with torch.no_grad():
            self._transformer.patch_embedding.weight.mul_(self._live)
        self._averages = [Average(model) for model in (self._text_encoder, self._transformer)]
        parameters = [*self._text_encoder.parameters(), *self._transformer.parameters()]
        self._optimiser = Optimiser(parameters, learning_rate)
        if DEVICE.type == "cuda":
            self._transformer.compile_repeated_blocks(fullgraph=True, options=_INDUCTOR)
        self._steps: dict[tuple[Canvas, int], Captured] = {}
        self.spent, self.steps = 0.0, 0

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        models = [self._text_encoder, self._transformer, *(average.model for average in self._averages)]
        states = {f"model_{number}": model.state_dict() for number, model in enumerate(models)}
        return {**states, "optimiser": self._optimiser.state(), "spent": self.spent, "steps": self.steps}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        models = [self._text_encoder, self._transformer, *(average.model for average in self._averages)]
        for number, model in enumerate(models):
            model.load_state_dict(state[f"model_{number}"])
        self._optimiser.load(state["optimiser"])
        self.spent, self.steps = state["spent"], state["steps"]

    def save(self, folder: Path) -> None:
        """The pipeline with averaged weights, as WanPipeline loads it."""
        text_encoder, transformer = (average.model for average in self._averages)
        save_pipeline(folder, self._vae, self._tokenizer, text_encoder, transformer)

    def run(self, minutes: float, rng: Random, log: Log, may_go_on: Callable[[], bool]) -> bool:
        """Train until `minutes` are spent in all; whether that is so, or it was stopped before."""
        while (done := self.spent / (60 * minutes)) < 1:
            if not may_go_on():
                return False
            part = next(number for number, until in enumerate(PARTS) if done < until)
            self._prepare(part, log)
            begin = time.monotonic()
            last: dict[Canvas, torch.Tensor] = {}
            for _ in range(20):
                self._optimiser.share.fill_(warmup_then_cosine(done, self.steps))
                for average in self._averages:
                    average.rate.fill_(max(1 / 1500, 1 / (1 + self.steps / 4)))
                canvas = rng.choices(CANVASES, [one.weights[part] for one in CANVASES])[0]
                last[canvas] = self._steps[canvas, rng.choice(canvas.prompt_tokens)]()["loss"]
                self.steps += 1
            values = {f"loss_{one.frames}x{one.side}": float(loss) for one, loss in last.items()}
            self.spent += time.monotonic() - begin
            if self.steps % 200 == 0:
                log.write("transformer", "", {"steps": self.steps, "done": done, **values})
        return True

    def _prepare(self, part: int, log: Log) -> None:
        for canvas in CANVASES:
            if canvas.weights[part] and (canvas, canvas.prompt_tokens[0]) not in self._steps:
                begin = time.monotonic()
                bank = Bank.encode(self._vae, self._tokenizer, self._scenes, canvas, self._scale)
                encoded = time.monotonic() - begin
                for length in set(canvas.prompt_tokens):
                    step = Captured(partial(self._step, canvas, bank, length))
                    self._steps[canvas, length] = step
                    for _ in range(4):
                        step()
                if DEVICE.type == "cuda":
                    torch.cuda.synchronize()
                log.write(
                    "transformer",
                    f"{len(bank.latents)} clips of {canvas.frames} frames of {canvas.side}x{canvas.side}",
                    {"encoding": encoded, "compiling": time.monotonic() - begin - encoded},
                )

    def _step(self, canvas: Canvas, bank: Bank, prompt_tokens: int) -> dict[str, torch.Tensor]:
        batch = max(1, round(canvas.batch * self._scale))
        rows = torch.randint(len(bank.latents), (batch,), device=DEVICE)
        captions = torch.randint(bank.tokens.shape[1], (batch,), device=DEVICE)
        dropped = torch.rand(batch, 1, device=DEVICE) < _DROPPED
        tokens = torch.where(dropped, bank.none, bank.tokens[rows, captions])
        with autocast():
            embeds = encode_tokens(self._text_encoder, tokens, prompt_tokens)
            loss = flow_matching_loss(self._transformer, bank.latents[rows].float(), embeds, self._live)
        self._optimiser.step(loss)
        for average in self._averages:
            average.follow()
        return {"loss": loss.detach()}


def encode_tokens(text_encoder: UMT5EncoderModel, tokens: torch.Tensor, length: int) -> torch.Tensor:
    """What WanPipeline does with prompts: hidden states, zero beyond the prompt, padded to `length` tokens."""
    mask = (tokens != text_encoder.config.pad_token_id).long()
    hidden = text_encoder(tokens, mask).last_hidden_state * mask[..., None]
    return torch.nn.functional.pad(hidden, (0, 0, 0, length - hidden.shape[1]))


def live_channels(vae: AutoencoderKLWan) -> torch.Tensor:
    """1 for each latent channel that carries something, 0 for the others: (1, channels, 1, 1, 1).

    The KL term makes the autoencoder give up channels that it does not need. What is left in them is not decoded, but
    once standardised it looks like any other channel, and is harder to predict.
    """
    deviation = torch.tensor(vae.config.latents_std, device=DEVICE).view(1, -1, 1, 1, 1)
    return (deviation > _LEAST_DEVIATION).float()


def noise_levels(count: int, side: int) -> torch.Tensor:
    """Logit-normal levels, shifted by 3 as at sampling time: what a scene is, is decided at high noise.

    A larger canvas shows the same shape in more tokens, so it stays visible under more noise: the shift grows with the
    side of the latents, as Esser et al. 2024 (Stable Diffusion 3, section 5.3.2) derive it.
    """
    shift = 3 * max(1.0, side / 8)
    level = torch.sigmoid(torch.randn(count, device=DEVICE))
    return shift * level / (1 + (shift - 1) * level)


def flow_matching_loss(
    transformer: WanTransformer3DModel, latents: torch.Tensor, prompt_embeds: torch.Tensor, live: torch.Tensor
) -> torch.Tensor:
    """Mean squared error of the predicted velocity, noise minus data (Lipman et al. 2023; Liu et al. 2023).

    Channels that carry nothing are zero here. The weights that read and write them begin with zeros, so they get no
    gradient and stay as they are: at sampling time the model neither sees nor changes what is in these channels.
    """
    latents, noise = latents * live, torch.randn_like(latents) * live
    level = noise_levels(len(latents), latents.shape[-1])
    mixed = latents + level.view(-1, 1, 1, 1, 1) * (noise - latents)
    predicted = transformer(mixed, level * 1000, prompt_embeds, return_dict=False)[0].float()
    loss: torch.Tensor = (predicted - (noise - latents)).square().mean() / live.mean()
    return loss
