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
from fastvideo_core.engine.caching.decisions import OwnDecisions
from fastvideo_core.engine.caching.gate import Gate
from fastvideo_core.engine.caching.gated_pass import GatedPass, SignalReader
from fastvideo_core.engine.caching.signals import modulated_input, time_changes, time_values
from fastvideo_core.engine.layers import first_attention
from fastvideo_core.engine.plugin_calls import details_of

_CLOSE = 0.01
"""How far a pass's timestep may be from the scheduler's, as a share of the largest: pipelines round it."""


class RunCaching:
    """What one run knows of its caching policy.

    Args:
        chosen: the policy, made ready for the model.
        pipe: asked for its scheduler's timesteps when a branch starts.
        decisions: whose they are; None: this process's.
    """

    def __init__(
        self,
        chosen: ChosenPolicy,
        model: CachedModel,
        family: ModelFamily,
        transformers: Sequence[Any],
        pipe: Any,
        num_steps: int,
        decisions: OwnDecisions | None = None,
    ) -> None:
        self.gate = Gate(chosen.policy, int(getattr(getattr(pipe, "scheduler", None), "order", 1)), decisions)
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
            partial(self._make_branch, expert, branch, self._num_steps - steps_done, arguments),
            self._family.stack,
            self._reader(self._transformers[expert], arguments),
        )

    def receipt(self) -> CacheReceipt:
        """What the policy did."""
        return CacheReceipt(
            policy=self.gate.policy.name,
            distribution=self._chosen.distribution,
            reason=self._chosen.origin,
            settings=self.gate.policy.settings_used(),
            origins=self.gate.policy.origins(),
            details=details_of(self.gate.policy),
            schedule=dict(self.gate.schedules()),
        )

    def _make_branch(self, expert: int, branch: str, steps_left: int, arguments: Mapping[str, Any]) -> Branch:
        timestep, hidden = arguments["timestep"], arguments["hidden_states"]
        timesteps = self._timesteps(expert, timestep, steps_left)
        modules = self._family.time_signals.get(self.gate.policy.signal)
        changes = None
        if timesteps and modules and (shares := _shares(timestep)):
            ahead = torch.tensor(timesteps, dtype=torch.float32, device=hidden.device)
            changes = time_changes(self._transformers[expert], modules, ahead, hidden.dtype, shares)
        return Branch(self._model, branch, expert, len(timesteps) or self._num_steps, timesteps, changes)

    def _timesteps(self, expert: int, timestep: torch.Tensor, steps_left: int) -> tuple[float, ...]:
        """The scheduler's timesteps from this pass on that are the expert's; none if they do not fit it.

        A pipeline may tell the model noise levels on another scale, where the nearest timestep means nothing, or bring
        frames in one after the other, each at its own place in the list: then there are not as many left as steps.
        """
        scheduler = getattr(self._pipe, "scheduler", None)
        listed = getattr(scheduler, "timesteps", None)
        if not isinstance(listed, torch.Tensor) or not len(listed):
            return ()
        every = [float(value) for value in listed.tolist()]
        now = float(timestep.max())
        start = min(range(len(every)), key=lambda index: abs(every[index] - now))
        if abs(every[start] - now) > _CLOSE * max(map(abs, every)):
            return ()
        if not steps_left <= len(every) - start <= steps_left * self.gate.passes_a_step:
            return ()
        return experts_timesteps(
            tuple(every[start:]),
            len(self._transformers),
            self._pipe.config.get("boundary_ratio"),
            int(self._pipe.scheduler.config.num_train_timesteps),
        )[expert]

    def _reader(self, transformer: Any, arguments: Mapping[str, Any]) -> SignalReader | None:
        """How the signal is read off a call of the first block; None where that call does not have it."""
        signal, family = self.gate.policy.signal, self._family
        if signal is Signal.MODULATED_INPUT:
            attention = first_attention(transformer, family)
            return lambda block, args: modulated_input(block, args, attention)
        if signal in family.block_signals:
            return lambda block, args: args[family.block_signals[signal]]
        if signal in family.time_signals:
            timestep, dtype = arguments["timestep"], arguments["hidden_states"].dtype
            each = timestep[0].flatten() if timestep.ndim > 1 else timestep
            return lambda block, args: time_values(transformer, family.time_signals[signal], each, dtype)
        return None


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
    """For a timestep per token, (batch, tokens), or frame: how many of them have none, and how many the step's.

    Empty where some have another, of which the first pass does not say how it goes on.
    """
    if timestep.ndim < 2 or not timestep.max():
        return {1.0: 1.0}
    fractions, counts = torch.unique(timestep[0].float() / timestep.max(), return_counts=True)
    shares = dict(zip(fractions.tolist(), (counts / counts.sum()).tolist(), strict=True))
    return shares if shares.keys() <= {0.0, 1.0} else {}
