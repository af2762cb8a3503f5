"""What both training scripts share: device, precision, optimiser, averages of weights, captured steps, the log."""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.backends.cudnn.benchmark = True
torch.set_float32_matmul_precision("high")

_WARM_UP = 3


def autocast() -> AbstractContextManager[None]:
    """On a GPU compute in bfloat16 where that is safe; nothing cached, which a captured step could not keep."""
    return torch.autocast(DEVICE.type, dtype=torch.bfloat16, cache_enabled=False, enabled=DEVICE.type == "cuda")


class Optimiser:
    """Muon for the weight matrices (convolutions flattened to matrices), Adam for the rest; it never waits for a GPU.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) reaches a given loss in about half the steps
    of AdamW here. torch's own takes one matrix at a time, and cannot be captured in a CUDA graph; this one takes all
    matrices of a shape together. Updates are scaled as in Liu et al. 2025 (Moonlight): one learning rate fits both.

    Args:
        learning_rate: the peak; `share` of it is used.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], learning_rate: float) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.share = torch.ones((), device=DEVICE)
        self._rate = learning_rate
        self._groups: dict[tuple[int, int], list[torch.nn.Parameter]] = defaultdict(list)
        self._others = []
        for parameter in self.parameters:
            if parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= 8:
                self._groups[parameter.shape[0], parameter[0].numel()].append(parameter)
            else:
                self._others.append(parameter)
        self._momenta = {shape: torch.zeros(len(group), *shape, device=DEVICE) for shape, group in self._groups.items()}
        self._means = [torch.zeros_like(p) for p in self._others]
        self._squares = [torch.zeros_like(p) for p in self._others]
        self._count = torch.zeros((), device=DEVICE)

    def step(self, loss: torch.Tensor) -> None:
        """Back-propagate, clip, update and clear the gradients."""
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        with torch.no_grad():
            for shape, group in self._groups.items():
                self._muon(group, self._momenta[shape])
            self._adam()
        for parameter in self.parameters:
            parameter.grad = None

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        return {"momenta": self._momenta, "means": self._means, "squares": self._squares, "count": self._count}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for shape, momentum in self._momenta.items():
            momentum.copy_(state["momenta"][shape])
        for own, saved in zip([*self._means, *self._squares], [*state["means"], *state["squares"]], strict=True):
            own.copy_(saved)
        self._count.copy_(state["count"])

    def _muon(self, group: Sequence[torch.nn.Parameter], momentum: torch.Tensor) -> None:
        gradients = torch.stack([p.grad.flatten(1) for p in group if p.grad is not None])
        momentum.lerp_(gradients, 0.05)
        update = _orthogonal(gradients.lerp(momentum, 0.95)).float()
        update *= self._rate * 0.2 * math.sqrt(max(update.shape[1:])) * self.share
        decay = 1 - 0.01 * self._rate * self.share
        weights = [p.flatten(1) for p in group]
        torch._foreach_mul_(weights, decay)
        torch._foreach_sub_(weights, list(update.unbind(0)))

    def _adam(self, first: float = 0.9, second: float = 0.98) -> None:
        gradients = [p.grad for p in self._others if p.grad is not None]
        self._count += 1
        torch._foreach_lerp_(self._means, gradients, 1 - first)
        torch._foreach_mul_(self._squares, second)
        torch._foreach_addcmul_(self._squares, gradients, gradients, 1 - second)
        roots = torch._foreach_sqrt(self._squares)
        torch._foreach_add_(roots, 1e-8)
        updates = list(torch._foreach_div(self._means, roots))
        unbiased = (1 - second**self._count).sqrt() / (1 - first**self._count)
        torch._foreach_mul_(updates, min(self._rate, 2e-3) * self.share * unbiased)
        torch._foreach_sub_([p.data for p in self._others], updates)


def _orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Near the orthogonal matrix next to each: Newton-Schulz with Muon's coefficients, (n, rows, columns)."""
    wide = matrices.shape[1] <= matrices.shape[2]
    x = (matrices if wide else matrices.mT).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    result: torch.Tensor = x if wide else x.mT
    return result


class Average:
    """A running average of a model's weights, which samples better than the last ones.

    Attributes:
        model: a copy with the averaged weights.
        rate: how far each step moves it.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.rate = torch.ones((), device=DEVICE)
        self._average = [p.data for p in self.model.parameters()]
        self._current = [p.data for p in model.parameters()]

    @torch.no_grad()
    def follow(self) -> None:
        """Move towards the model's weights."""
        moves = list(torch._foreach_sub(self._current, self._average))
        torch._foreach_mul_(moves, self.rate)
        torch._foreach_add_(self._average, moves)


class Captured:
    """A step without inputs that is replayed as one CUDA graph: launching its kernels takes longer than they run.

    The first calls run as they are, as does every call where there is no GPU.
    """

    def __init__(self, step: Callable[[], dict[str, torch.Tensor]]) -> None:
        self._step = step
        self._calls = 0
        self._graph: Any = None
        self._results: dict[str, torch.Tensor] = {}

    def __call__(self) -> dict[str, torch.Tensor]:
        """Run the step; what it returns is overwritten by the next one."""
        if DEVICE.type != "cuda":
            return self._step()
        self._calls += 1
        if self._calls <= _WARM_UP:
            return self._apart()
        if self._graph is None:
            self._capture()
        self._graph.replay()
        return self._results

    def _apart(self) -> dict[str, torch.Tensor]:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            results = self._step()
        torch.cuda.current_stream().wait_stream(stream)
        return results

    def _capture(self) -> None:
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._results = self._step()


def warmup_then_cosine(done: float, step: int, warmup_steps: int = 100) -> float:
    """The share of the peak learning rate at this point of the run (`done` from 0 to 1)."""
    return min(1.0, (step + 1) / warmup_steps) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


class Log:
    """Prints what happens and keeps it, a JSON object a line, for the curves.

    Args:
        started: when the time began that lines are stamped with, by `time.monotonic`.
    """

    def __init__(self, path: Path, started: float) -> None:
        self._path, self._started = path, started
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, stage: str, message: str, values: Mapping[str, float]) -> None:
        """Note a moment of a stage."""
        seconds = round(time.monotonic() - self._started, 1)
        shown = " ".join(f"{name} {value:.5g}" for name, value in values.items())
        print(f"{seconds:7.1f} s  {stage}: {message}{' ' * bool(message)}{shown}", flush=True)
        line = {"seconds": seconds, "stage": stage, **({"message": message} if message else {}), **values}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
