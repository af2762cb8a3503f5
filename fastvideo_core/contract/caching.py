"""The contract of a caching policy. Nothing here imports torch: discovery must stay cheap."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from fastvideo_core.contract.policy_settings import PolicySettings

if TYPE_CHECKING:
    import torch

    from fastvideo_core.contract.attention import Run


class Signal(StrEnum):
    """What a policy looks at. A model family tells which of them it has."""

    NONE = "NONE"
    """Nothing: the policy goes by the number of the step."""
    HIDDEN = "HIDDEN"
    """What enters the block stack: `Step.hidden` itself. It stands for leave to read values off it."""
    TIME_EMBEDDING = "TIME_EMBEDDING"
    """The embedding of the timestep."""
    TIME_PROJECTION = "TIME_PROJECTION"
    """Its projection, which modulates the blocks."""
    MODULATED_INPUT = "MODULATED_INPUT"
    """What the first block's attention sees: its input, normalised and modulated by the timestep."""
    FIRST_BLOCK_OUTPUT = "FIRST_BLOCK_OUTPUT"
    """What the first block returns, or the last of the `first_blocks` of the policy."""


class Action(StrEnum):
    """What is done in a step."""

    COMPUTE = "COMPUTE"
    """Run the blocks and keep their residual: output minus input, of those that can be skipped."""
    REUSE = "REUSE"
    """Add the latest residual to the input instead."""
    FORECAST = "FORECAST"
    """Add the residual that the policy's `forecast` makes of the latest ones."""


@dataclass(frozen=True)
class CachedModel:
    """The model that a policy is to serve.

    Attributes:
        name: as the user gave it, or as the pipeline tells.
        family: its family, such as "Wan".
        pipeline: the class name of its pipeline.
        folder: where it lies, if that is a local folder.
        signals: what a policy can look at.
        known_ahead: those of them that depend on the timestep alone, so that they are known before the first step.
        num_blocks: how many blocks its transformer has; None before it is loaded.
        num_experts: how many transformers share the steps, two in Wan 2.2; None before it is loaded.
    """

    name: str
    family: str
    pipeline: str
    folder: Path | None
    signals: frozenset[Signal]
    known_ahead: frozenset[Signal]
    num_blocks: int | None = None
    num_experts: int | None = None

    @property
    def checkpoint(self) -> str:
        """The last part of its name; of a hub's cache, models--OWNER--NAME/snapshots/REVISION, the NAME."""
        parts = self.name.replace("\\", "/").rstrip("/").split("/")
        if len(parts) > 2 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
            return parts[-3].rpartition("--")[2]
        return parts[-1]


@dataclass(frozen=True)
class Branch:
    """The forward passes of one guidance branch through one expert, in one run: what state belongs to.

    Attributes:
        name: "cond", "uncond", "cond_uncond" for both in one batch; where the pipeline does not say, "" for the first
            call of a step, "call 2" for the next.
        expert: 0, or 1 for the second transformer of a Wan 2.2.
        num_steps: how many forward passes it has.
        timesteps: of the scheduler, one per pass; empty where they could not be read off it.
        changes: one per pass, the relative L1 change of the policy's signal from the pass before, 0.0 for the first;
            None where the signal is not known before the first step.
    """

    model: CachedModel
    name: str
    expert: int
    num_steps: int
    timesteps: tuple[float, ...] = ()
    changes: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass of a branch.

    Attributes:
        index: its number in the branch, from 0.
        num_steps: how many forward passes the branch has.
        hidden: what enters the block stack, (batch, video tokens, channels); must not be changed.
        signal: the policy's signal, in whatever shape the model has it; None for `Signal.NONE`.
        others: for a policy that `sees_others`, by the branch's name, the residuals of the branches that ran before
            this one in the same step of the loop: computed, reused or forecast. They must not be changed.
    """

    index: int
    num_steps: int
    hidden: torch.Tensor
    signal: torch.Tensor | None = None
    others: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Computed:
    """A step that was computed: its number in the branch, and its residual, shaped like `Step.hidden`."""

    index: int
    residual: torch.Tensor


def relative_change(now: torch.Tensor, before: torch.Tensor) -> float:
    """mean|now - before| / mean|before|, in float32. Reading it waits for the device."""
    difference = (now.float() - before.float()).abs().mean()
    return float((difference / before.float().abs().mean()).item())


class CachePolicy(PolicySettings, ABC):
    """Decides, per step and guidance branch, whether the block stack is computed.

    Make it a dataclass whose fields are declared with `setting`; one that has a `__post_init__` calls that of `super()`
    first, which reads and checks them.

    One object serves all branches and runs: it keeps nothing of them itself; that belongs into the state that `start`
    makes, which the core keeps per branch and forgets when a run ends, however it ends.
    """

    name: ClassVar[str]
    """Upper case, as in FASTVIDEO_CACHE_POLICY."""

    history: int = 1
    """How many residuals `forecast` is given at most."""

    signal: Signal = Signal.NONE
    """What it looks at; may be a property, and may depend on the model once `for_model` has seen it."""

    first_blocks: int = 0
    """How many of the first blocks run in every step; 1 if it is 0 and the signal is FIRST_BLOCK_OUTPUT.

    It then decides behind them, and the residual is that of the blocks between these and the last ones.
    """

    last_blocks: int = 0
    """How many of the last blocks run in every step. Where blocks change the text too, its latest residual is added."""

    branches_decide_together: bool = False
    """Whether one decision serves all guidance branches of a step of the loop, through one expert.

    The branch that comes first decides; each adds a residual of its own, and one that has none yet is computed.
    """

    sees_others: bool = False
    """Whether `Step.others` has the residuals of the other branches; they are kept until the step ends."""

    def for_model(self, model: CachedModel) -> Self:
        """This policy with all that it needs for a model; called before the first step. Default: as it is.

        Raises:
            PolicyMismatchError, InputError: it cannot serve the model.
        """
        return self

    def plan(self, branch: Branch) -> Sequence[Action] | None:
        """All actions of a branch before its first step, so that nothing is decided, or waited for, in the loop.

        Where it returns None, `decide` is asked at each step. Both must come to the same.
        """
        return None

    def start(self, branch: Branch) -> Any:
        """A new state for a branch that is about to start: any object. Default: None."""
        return None

    @abstractmethod
    def decide(self, step: Step, state: Any) -> Action:
        """What to do in a step; without a residual to reuse it must be COMPUTE.

        Asked once a step, in order; where branches decide together, of the first branch of each step.
        """

    def forecast(self, step: Step, state: Any, computed: Sequence[Computed]) -> torch.Tensor:
        """The residual to add in a step that is to be FORECAST.

        Args:
            computed: the latest computed steps, oldest first, at most `history`, at least one.

        For a model of two streams, such as video and audio, it is asked once for each: `step.hidden`, `step.others` and
        `computed` are then of the second stream the second time.
        """
        raise NotImplementedError(f"{self.name} decided to forecast and has no forecast")

    def observe(self, step: Step, state: Any, residual: torch.Tensor) -> None:  # optional
        """Called after a step that was computed, with its residual."""

    def start_run(self, run: Run) -> None:  # optional
        """Called before the first step of a run; raise a CacheError or InputError if it cannot be served."""

    def end_run(self, error: BaseException | None) -> None:  # optional
        """Called when a run is over that `start_run` has let in, the device being done with it.

        Args:
            error: what ended the run; None if it ended well. Raise a CacheError to fail such a run.
        """

    def run_details(self) -> dict[str, Any]:
        """What the receipt should tell beside settings and schedule, as plain values. Default: nothing."""
        return {}
