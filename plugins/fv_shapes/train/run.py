"""Train the whole model with one command, which goes on where it stopped: python train/run.py --output runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import click
import torch
from bank import CANVASES
from clips import Drawing, drawing_pool
from common import DEVICE, Log
from diffusers import AutoencoderKLWan
from transformer import TransformerTraining
from vae import MEASURED, AutoencoderTraining, psnr, standardise

_STATE_EVERY = 60.0
_TABLE = 20_000
_HELD_OUT_SEED = 987
_STOPPED = "stopped; call again to go on"


class Clock:
    """Whether there is still time."""

    def __init__(self, limit: float | None) -> None:
        self.started = time.monotonic()
        self._limit = limit

    def is_time_left(self) -> bool:
        """Whether the limit of this call has not been reached."""
        return self._limit is None or time.monotonic() - self.started < self._limit


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder for states, log and the model.")
@click.option("--vae-minutes", default=7.8, show_default=True, help="Training of the autoencoder.")
@click.option("--minutes", default=14.5, show_default=True, help="Training of the transformer, encoding apart.")
@click.option("--only-autoencoder", is_flag=True, help="Stop when the autoencoder is trained.")
@click.option("--limit", type=float, help="Stop after as many seconds; call again to go on.")
@click.option("--vae-learning-rate", default=5e-3, show_default=True)
@click.option("--learning-rate", default=2.5e-3, show_default=True)
@click.option("--pairs", default=0.6, show_default=True, help="Share of clips with two shapes.")
@click.option("--scale", default=1.0, show_default=True, help="Share of batches and clips, to try it on a CPU.")
@click.option("--seed", default=0, show_default=True)
def main(
    output: Path,
    vae_minutes: float,
    minutes: float,
    only_autoencoder: bool,
    limit: float | None,
    vae_learning_rate: float,
    learning_rate: float,
    pairs: float,
    scale: float,
    seed: int,
) -> None:
    """Train the autoencoder, then the text encoder and the transformer; write OUTPUT/model."""
    clock = Clock(limit)
    torch.manual_seed(seed)
    rng = Random(seed)
    log = Log(output / "log.jsonl", clock.started)
    with drawing_pool() as pool:
        table = Drawing(seed + 1, round(_TABLE * min(1.0, scale * 4)), pairs, 0, pool)
        held_out = Drawing(_HELD_OUT_SEED, max(3, round(72 * scale)), pairs, 0, pool)
        most = max(canvas.kept for canvas in CANVASES)
        scenes = Drawing(seed + 2, max(300, round(most * scale)), pairs, 4, pool)
        if not (output / "vae" / "config.json").exists() and not _train_vae(
            output, table, held_out, vae_minutes, vae_learning_rate, scale, rng, log, clock
        ):
            return
        if only_autoencoder:
            return
        vae = AutoencoderKLWan.from_pretrained(output / "vae").to(DEVICE).eval()
        training = TransformerTraining(vae, scenes.result(), learning_rate, scale)
    state = output / "transformer.pt"
    if state.exists():
        training.load(torch.load(state, map_location=DEVICE))
        log.write("transformer", "goes on", {"steps": training.steps})
    done = training.run(minutes, rng, log, _saving(training, state, clock))
    _save_state(training, state)
    training.save(output / "model")
    log.write("transformer", "done" if done else _STOPPED, {"steps": training.steps})


def _train_vae(
    output: Path,
    table: Drawing,
    held_out: Drawing,
    minutes: float,
    learning_rate: float,
    scale: float,
    rng: Random,
    log: Log,
    clock: Clock,
) -> bool:
    training = AutoencoderTraining(table.result().table.to(DEVICE), learning_rate, scale)
    state = output / "vae.pt"
    if state.exists():
        training.load(torch.load(state, map_location=DEVICE))
        log.write("autoencoder", "goes on", {"steps": training.steps})
    done = training.run(minutes, rng, log, _saving(training, state, clock))
    _save_state(training, state)
    if not done:
        log.write("autoencoder", _STOPPED, {"steps": training.steps})
        return False
    vae, scenes = training.averaged, held_out.result().table.to(DEVICE)
    standardise(vae, scenes)
    for frames, side in MEASURED:
        mean, least = psnr(vae, scenes[::3], frames, side)
        title = f"held-out clips, {frames} frames of {side}x{side}"
        log.write("autoencoder", title, {"psnr_mean": mean, "psnr_least": least})
    vae.save_pretrained(output / "vae")
    return True


def _saving(training: AutoencoderTraining | TransformerTraining, path: Path, clock: Clock) -> Callable[[], bool]:
    """Tells whether there is time left, and saves the state now and then."""
    saved = time.monotonic()

    def may_go_on() -> bool:
        nonlocal saved
        if time.monotonic() - saved > _STATE_EVERY:
            _save_state(training, path)
            saved = time.monotonic()
        return clock.is_time_left()

    return may_go_on


def _save_state(training: AutoencoderTraining | TransformerTraining, path: Path) -> None:
    unfinished = path.with_suffix(".unfinished")
    torch.save(training.state(), unfinished)
    os.replace(unfinished, path)


if __name__ == "__main__":
    main()
