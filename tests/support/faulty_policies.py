"""Caching policies: a sound one, and ones with a fault each, for trying the suite on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fastvideo_core import Action, Branch, CachePolicy, Computed, Signal, Step

PATTERN = "CRFC"


@dataclass
class Sound(CachePolicy):
    """Computes, reuses and forecasts in turn; planned ahead."""

    name = "SOUND"
    history = 2
    skips: bool = True

    def plan(self, branch: Branch) -> Sequence[Action] | None:
        return [self._action(index) for index in range(branch.num_steps)]

    def start(self, branch: Branch) -> dict[str, Any]:
        return {}

    def decide(self, step: Step, state: Any) -> Action:
        return self._action(step.index)

    def _action(self, index: int) -> Action:
        letter = PATTERN[index % len(PATTERN)] if self.skips else "C"
        return {"C": Action.COMPUTE, "R": Action.REUSE, "F": Action.FORECAST}[letter]

    def forecast(self, step: Step, state: Any, computed: Sequence[Computed]) -> torch.Tensor:
        return 2 * computed[-1].residual - computed[0].residual


class KeepsStateItself(Sound):
    """Counts the steps of all branches together."""

    def __init__(self, skips: bool = True) -> None:
        super().__init__(skips)
        self.count = 0

    def plan(self, branch: Branch) -> None:
        return None

    def decide(self, step: Step, state: Any) -> Action:
        self.count += 1
        return Action.COMPUTE if step.index == 0 else self._action(self.count)


class Random(Sound):
    def plan(self, branch: Branch) -> None:
        return None

    def decide(self, step: Step, state: Any) -> Action:
        skips = self.skips and step.index and random.random() < 0.5
        return Action.REUSE if skips else Action.COMPUTE


class PlansSomethingElse(Sound):
    def decide(self, step: Step, state: Any) -> Action:
        return self._action(step.index // 2)


class SkipsTheFirst(Sound):
    def _action(self, index: int) -> Action:
        return super()._action(index + 1)


class SkipsAllTheSame(Sound):
    """Does not mind its settings."""

    def _action(self, index: int) -> Action:
        return Action.REUSE if index % 2 else Action.COMPUTE


class NeverSkips(Sound):
    def _action(self, index: int) -> Action:
        return Action.COMPUTE


class WritesResiduals(Sound):
    def forecast(self, step: Step, state: Any, computed: Sequence[Computed]) -> torch.Tensor:
        return computed[-1].residual.mul_(0.9)


class WritesHidden(Sound):
    def plan(self, branch: Branch) -> None:
        return None

    def decide(self, step: Step, state: Any) -> Action:
        step.hidden.mul_(0.99)
        return super().decide(step, state)


class Waits(Sound):
    """Looks at no signal, and reads the residuals all the same."""

    def observe(self, step: Step, state: Any, residual: torch.Tensor) -> None:
        state["norm"] = residual.norm().item()


class ChangesItsSettings(Sound):
    def plan(self, branch: Branch) -> Sequence[Action] | None:
        planned = super().plan(branch)
        self.latest = branch.num_steps
        return planned


@dataclass
class LeavesSomethingBehind(Sound):
    """Keeps what the caller's hidden states are part of."""

    seen: list[torch.Tensor] = field(default_factory=list)

    def observe(self, step: Step, state: Any, residual: torch.Tensor) -> None:
        self.seen.append(residual)


class ForecastsAnotherShape(Sound):
    def forecast(self, step: Step, state: Any, computed: Sequence[Computed]) -> torch.Tensor:
        return computed[-1].residual[:, :1]


class MixesBranches(Sound):
    """Compares the first block's output with that of whatever branch came last."""

    signal = Signal.FIRST_BLOCK_OUTPUT

    def __init__(self, skips: bool = True) -> None:
        super().__init__(skips)
        self._latest: dict[str, torch.Tensor] = {}

    def plan(self, branch: Branch) -> None:
        return None

    def decide(self, step: Step, state: Any) -> Action:
        assert step.signal is not None
        before = self._latest.get("signal")
        self._latest["signal"] = step.signal
        alike = before is not None and float((step.signal - before).abs().mean()) < 0.3
        return Action.REUSE if self.skips and step.index and alike else Action.COMPUTE


class SkipsTheFirstOfOneBranch(Sound):
    def plan(self, branch: Branch) -> Sequence[Action] | None:
        shift = int(branch.name == "uncond")
        return [self._action(index + shift) for index in range(branch.num_steps)]


class DecidesTogetherByWhatFollows(Sound):
    """One branch decides for all, by how many steps of any branch have been computed."""

    branches_decide_together = True

    def __init__(self, skips: bool = True) -> None:
        super().__init__(skips)
        self.computed = 0

    def plan(self, branch: Branch) -> None:
        return None

    def decide(self, step: Step, state: Any) -> Action:
        return Action.REUSE if self.skips and step.index % 4 and self.computed % 3 else Action.COMPUTE

    def observe(self, step: Step, state: Any, residual: torch.Tensor) -> None:
        self.computed += 1


class SeesOthersUnasked(Sound):
    """Does not say that it sees the other branches."""

    def forecast(self, step: Step, state: Any, computed: Sequence[Computed]) -> torch.Tensor:
        return step.others["cond"] if state else computed[-1].residual

    def start(self, branch: Branch) -> dict[str, Any]:
        return {"follows": True} if branch.name == "uncond" else {}


class WritesOthers(Sound):
    sees_others = True

    def observe(self, step: Step, state: Any, residual: torch.Tensor) -> None:
        for other in step.others.values():
            other.mul_(0.9)


class ReadsWhatEntersUnasked(Sound):
    """Reads values off the hidden states, and does not say that it looks at them."""

    def plan(self, branch: Branch) -> None:
        return None

    def decide(self, step: Step, state: Any) -> Action:
        return Action.COMPUTE if step.hidden.mean().item() > 1e9 else self._action(step.index)


class FewerBlocksThanNone(Sound):
    last_blocks = -1


class MoreBlocksThanThereAre(Sound):
    first_blocks = 99


class ForgetsGraphs(Sound):
    """Has torch forget what it compiled, whenever it forecasts."""

    def forecast(self, step: Step, state: Any, computed: Sequence[Computed]) -> torch.Tensor:
        torch.compiler.reset()
        return super().forecast(step, state, computed)
