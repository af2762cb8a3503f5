"""What both training scripts share: device, precision, random clips, learning-rate schedule, logging."""

from __future__ import annotations

import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fv_shapes.render import render
from fv_shapes.scenes import Scene, random_scene

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast() -> AbstractContextManager[None]:
    """Compute in bfloat16 where that is safe."""
    return torch.autocast(DEVICE.type, dtype=torch.bfloat16)


def random_scenes_and_clips(rng: Random, count: int, frames: int, side: int) -> tuple[list[Scene], torch.Tensor]:
    """Render `count` random scenes; return them and clips (count, 3, frames, side, side) in -1…1."""
    scenes = [random_scene(rng) for _ in range(count)]
    pixels = torch.from_numpy(np.stack([render(scene, frames, side, side) for scene in scenes])).to(DEVICE)
    return scenes, pixels.permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1)


class Optimiser:
    """Muon for the weight matrices (convolutions flattened to matrices), AdamW for the rest, one schedule for both.

    Muon (Jordan et al. 2024, torch.optim.Muon) reaches a given loss in about half the steps of AdamW here.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], learning_rate: float) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self._matrices = [p for p in self.parameters if p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= 8]
        self._flat = [torch.nn.Parameter(p.detach().flatten(1)) for p in self._matrices]
        chosen = {id(p) for p in self._matrices}
        others = [p for p in self.parameters if id(p) not in chosen]
        self._optimisers = (
            torch.optim.Muon(self._flat, lr=learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=min(learning_rate, 2e-3), betas=(0.9, 0.98), weight_decay=0.0),
        )
        self._peaks = [optimiser.param_groups[0]["lr"] for optimiser in self._optimisers]

    def step(self, loss: torch.Tensor, share_of_peak: float) -> None:
        """Back-propagate, clip, update and clear the gradients."""
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for flat, matrix in zip(self._flat, self._matrices, strict=True):
            flat.grad = None if matrix.grad is None else matrix.grad.flatten(1)
        for optimiser, peak in zip(self._optimisers, self._peaks, strict=True):
            optimiser.param_groups[0]["lr"] = peak * share_of_peak
            optimiser.step()
        for parameter in self.parameters:
            parameter.grad = None


def warmup_then_cosine(done: float, step: int, warmup_steps: int = 40) -> float:
    """The share of the peak learning rate at this point of the run (`done` from 0 to 1)."""
    return min(1.0, (step + 1) / warmup_steps) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


class Rate:
    """Averages of what was added since it was last printed, and steps per second."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)
        self._since = time.monotonic()

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self._values[name].append(value)

    def __str__(self) -> str:
        count = max(len(values) for values in self._values.values())
        parts = [f"{name} {sum(values) / len(values):.4f}" for name, values in self._values.items()]
        parts.append(f"{count / (time.monotonic() - self._since):.2f} steps/s")
        self._values.clear()
        self._since = time.monotonic()
        return " ".join(parts)


def log(message: str) -> None:
    print(message, flush=True)
