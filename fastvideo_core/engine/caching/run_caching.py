"""A caching policy in one run: its branches, and how each pass goes through its gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from fastvideo_core.contract.caching import Branch, CachedModel, Signal
from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.contract.receipt import CacheReceipt
from fastvideo_core.engine.caching.choice import ChosenPolicy
from fastvideo_core.engine.caching.gate import Gate, GatedPass

_CLOSE = 0.01
"""How far a pass's timestep may be from the scheduler's, as a share of the largest: pipelines round it."""


class RunCaching:
    """What one run knows of its caching policy.

    Args:
        chosen: the policy, made ready for the model.
        pipe: asked for its scheduler's timesteps when a branch starts.
    """

    def __init__(
        self,
        chosen: ChosenPolicy,
        model: CachedModel,
        family: ModelFamily,
        transformers: Sequence[Any],
        pipe: Any,
        num_steps: int,
    ) -> None:
        self.gate = Gate(chosen.policy)
        self._chosen, self._model, self._family = chosen, model, family
        self._transformers, self._pipe, self._num_steps = list(transformers), pipe, num_steps

    def gated_pass(self, expert: int, branch: str, steps_done: int, arguments: Mapping[str, Any]) -> GatedPass:
        """How a pass of a branch through an expert goes through the policy.

        Raises:
            CacheError: as `Gate.gated_pass` does.
        """
        return self.gate.gated_pass(
            expert,
            branch,
            steps_done,
            partial(self._make_branch, expert, branch, arguments),
            self._family.stack.returns_text,
            self._reader(self._transformers[expert], arguments),
        )

    def receipt(self) -> CacheReceipt:
        """What the policy did."""
        return CacheReceipt(
            policy=self.gate.policy.name,
            distribution=self._chosen.distribution,
            reason=self._chosen.origin,
            settings=self.gate.policy.settings(),
            schedule=dict(self.gate.schedules()),
        )

    def _make_branch(self, expert: int, branch: str, arguments: Mapping[str, Any]) -> Branch:
        timesteps = self._timesteps(expert, arguments["timestep"])
        signal = self.gate.policy.signal
        changes = None
        if timesteps and signal in self._family.time_signals:
            shares = _shares(arguments["timestep"])
            changes = signal_changes(self._family, self._transformers[expert], signal, timesteps, shares)
        return Branch(self._model, branch, expert, len(timesteps) or self._num_steps, timesteps, changes)

    def _timesteps(self, expert: int, timestep: torch.Tensor) -> tuple[float, ...]:
        """The scheduler's timesteps from this pass on that are the expert's; none if they do not fit it."""
        scheduler = getattr(self._pipe, "scheduler", None)
        listed = getattr(scheduler, "timesteps", None)
        if not isinstance(listed, torch.Tensor) or not len(listed):
            return ()
        every = [float(value) for value in listed.tolist()]
        now = float(timestep.max())
        start = min(range(len(every)), key=lambda index: abs(every[index] - now))
        if abs(every[start] - now) > _CLOSE * max(map(abs, every)):
            return ()
        return experts_timesteps(
            tuple(every[start:]),
            len(self._transformers),
            self._pipe.config.get("boundary_ratio"),
            int(self._pipe.scheduler.config.num_train_timesteps),
        )[expert]

    def _reader(self, transformer: Any, arguments: Mapping[str, Any]) -> Any:
        """How the signal is read off a call of the first block."""
        signal = self.gate.policy.signal
        if signal in self._family.time_signals:
            of_timesteps = self._family.time_signals[signal]
            timestep = arguments["timestep"]
            return lambda block, args: of_timesteps(transformer, timestep[0] if timestep.ndim == 2 else timestep)
        return self._family.signals.get(signal)


def experts_timesteps(
    timesteps: tuple[float, ...], experts: int, boundary_ratio: float | None, num_train_timesteps: int
) -> list[tuple[float, ...]]:
    """Which timesteps each expert gets: with two, the second has those below the boundary. Unknown: empty."""
    if experts == 1:
        return [timesteps]
    if boundary_ratio is None:
        return [()] * experts
    boundary = boundary_ratio * num_train_timesteps
    return [tuple(t for t in timesteps if t >= boundary), tuple(t for t in timesteps if t < boundary)]


def _shares(timestep: torch.Tensor) -> dict[float, float]:
    """For a timestep per token, (batch, tokens): which fractions of the step's timestep occur, and how often."""
    if timestep.ndim < 2 or not timestep.max():
        return {1.0: 1.0}
    fractions, counts = torch.unique(timestep[0].float() / timestep.max(), return_counts=True)
    return dict(zip(fractions.tolist(), (counts / counts.sum()).tolist(), strict=True))


def signal_changes(
    family: ModelFamily,
    transformer: Any,
    signal: Signal,
    timesteps: Sequence[float],
    shares: Mapping[float, float] | None = None,
) -> tuple[float, ...]:
    """The relative L1 change of a time signal from each timestep to the next; 0.0 for the first. One read in all.

    Args:
        shares: which fractions of the timestep the tokens have, and how many of them, where they differ.
    """
    steps = torch.tensor(timesteps, dtype=torch.float32)
    difference = before = torch.zeros(())
    with torch.no_grad():
        for fraction, share in (shares or {1.0: 1.0}).items():
            values = family.time_signals[signal](transformer, steps * fraction)
            difference = difference.to(values.device) + share * (values[1:] - values[:-1]).abs().mean(dim=-1)
            before = before.to(values.device) + share * values[:-1].abs().mean(dim=-1)
        return (0.0, *(difference / before).tolist())
