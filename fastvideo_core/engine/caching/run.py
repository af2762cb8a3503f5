"""The caching policy of one pipeline: chosen, made ready for the model, and followed through a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from fastvideo_core.contract.caching import Branch, CachedModel, Signal
from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.contract.receipt import CacheReceipt
from fastvideo_core.engine.caching.choice import ChosenPolicy, prepare_policy
from fastvideo_core.engine.caching.gate import Gate, Passage

_CLOSE = 0.01
"""How far a forward pass's timestep may be from the scheduler's, as a share of the largest: pipelines round it."""


class Caching:
    """What the attachment of a pipeline asks about caching; without a policy it does nothing."""

    def __init__(self, pipe: Any, family: ModelFamily, transformers: Sequence[Any], model: CachedModel) -> None:
        self.passage: Passage | None = None
        """How the forward pass that is under way goes through the policy."""
        self.model = model
        self._pipe, self._family, self._transformers = pipe, family, list(transformers)
        self._chosen: ChosenPolicy | None = None
        self._gate: Gate | None = None
        self._num_steps = self._steps_done = 0

    def use(self, chosen: ChosenPolicy | None) -> None:
        """Take a policy, or none, from the next run on.

        Raises:
            PolicyMismatchError: the policy does not serve the model.
        """
        self._gate = None if chosen is None else Gate(prepare_policy(chosen.policy, self.model), self.model)
        self._chosen = chosen

    def start_run(self, num_steps: int) -> None:
        self._num_steps, self._steps_done = num_steps, 0
        if self._gate:
            self._gate.start_run()

    def step_done(self, done: int) -> None:
        self._steps_done = done

    def end_run(self) -> None:
        self.passage = None
        if self._gate:
            self._gate.end_run()

    def start_forward(self, transformer: torch.nn.Module, branch: str, arguments: Mapping[str, Any]) -> None:
        if self._gate is None:
            return
        expert = next(number for number, one in enumerate(self._transformers) if one is transformer)
        self.passage = self._gate.passage(
            expert,
            branch,
            self._steps_done,
            partial(self._make_branch, self._gate, expert, branch, arguments),
            self._family.stack.returns_text,
            self._reader(self._gate.policy.signal, transformer, arguments),
        )

    def end_forward(self) -> None:
        self.passage = None

    def skipped(self) -> dict[str, int]:
        """Steps of the latest run that were not computed, per branch."""
        return self._gate.skipped() if self._gate else {}

    def receipt(self) -> CacheReceipt | None:
        """What the policy did in the latest run."""
        if self._gate is None or self._chosen is None:
            return None
        return CacheReceipt(
            policy=self._gate.policy.name,
            distribution=self._chosen.distribution,
            reason=self._chosen.origin,
            settings=self._gate.policy.settings(),
            schedule=dict(self._gate.schedules()),
        )

    def _make_branch(self, gate: Gate, expert: int, branch: str, arguments: Mapping[str, Any]) -> Branch:
        timesteps = self._timesteps(expert, arguments["timestep"])
        signal = gate.policy.signal
        changes = None
        if timesteps and signal in self._family.time_signals:
            shares = _shares(arguments["timestep"])
            changes = signal_changes(self._family, self._transformers[expert], signal, timesteps, shares)
        return Branch(self.model, branch, expert, len(timesteps) or self._num_steps, timesteps, changes)

    def _timesteps(self, expert: int, timestep: torch.Tensor) -> tuple[float, ...]:
        """The scheduler's timesteps from this forward pass on that are the expert's; none if they do not fit it."""
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

    def _reader(self, signal: Signal, transformer: Any, arguments: Mapping[str, Any]) -> Any:
        """How the signal is read off a call of the first block."""
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
