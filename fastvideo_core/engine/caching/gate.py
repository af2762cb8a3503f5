"""How a policy meets a block stack: it decides at the stack's entry, and its residual is taken at the exit."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastvideo_core.contract.caching import Action, Branch, CachePolicy, Computed, Signal, Step
from fastvideo_core.errors import CacheError

if TYPE_CHECKING:
    import torch

SignalReader = Callable[[Any, tuple[Any, ...]], "torch.Tensor"]
"""A signal from the first block and the arguments that it is called with."""

_LETTERS = {Action.COMPUTE: "C", Action.REUSE: "R", Action.FORECAST: "F"}


@dataclass
class BranchState:
    """Where a branch stands."""

    branch: Branch
    plan: Sequence[Action] | None
    own: Any
    computed: deque[Computed]
    taken: list[Action] = field(default_factory=list)

    @property
    def letters(self) -> str:
        """C, R or F for each step so far."""
        return "".join(_LETTERS[action] for action in self.taken)


class GatedPass:
    """One forward pass through a block stack: `enter` stands before the first block, `leave` behind the last.

    `after_first` stands behind the first block, for a policy that looks at what it returns.
    """

    def __init__(
        self,
        policy: CachePolicy,
        begin: Callable[[], BranchState],
        returns_text: bool,
        read_signal: SignalReader | None,
    ) -> None:
        self.skips = False
        """Whether the blocks that come now are left out; known once the policy has decided."""
        self.decided = False
        self.decides_after_first = policy.signal is Signal.FIRST_BLOCK_OUTPUT
        self._policy, self._begin = policy, begin
        self._returns_text, self._read_signal = returns_text, read_signal
        self._step: Step | None = None
        self._base: Any = None

    def enter(self, first_block: Any, args: tuple[Any, ...]) -> Any:
        """Stand in for a block that is called with the arguments of the first one."""
        # Only now are the model's own modules where they can run: offloading brings some of them as its forward starts.
        self._state = self._begin()
        hidden = args[0]
        if not self.decides_after_first:
            return self._decided(hidden, hidden, args, lambda: self._read(first_block, args))
        self._step = self._next_step(hidden, None)
        return self._as_result(hidden, args)

    def after_first(self, args: tuple[Any, ...]) -> Any:
        """Stand in for a block that is called with what the first one returned."""
        assert self._step is not None
        return self._decided(args[0], self._step.hidden, args, lambda: args[0])

    def leave(self, args: tuple[Any, ...]) -> Any:
        """Stand in for a block that is called with what the last one returned."""
        assert self._step is not None
        residual = args[0] - self._base
        self._base = None
        self._state.computed.append(Computed(self._step.index, residual))
        self._policy.observe(self._step, self._state.own, residual)
        return self._as_result(args[0], args)

    def _decided(self, base: Any, entered: Any, args: tuple[Any, ...], read: Callable[[], torch.Tensor | None]) -> Any:
        """Let the policy decide; `base` is what a residual is added to, `entered` what entered the stack."""
        state = self._state
        index = len(state.taken)
        if state.plan is not None:
            self._step = self._next_step(entered, None)
            action = state.plan[index] if index < len(state.plan) else Action.COMPUTE
        else:
            self._step = self._next_step(entered, read())
            action = self._policy.decide(self._step, state.own)
        self._check(action, index)
        self.decided = True
        state.taken.append(action)
        self.skips = action is not Action.COMPUTE
        if not self.skips:
            self._base = base
            return self._as_result(base, args)
        return self._as_result(base + self._residual(action, base), args)

    def _residual(self, action: Action, base: Any) -> Any:
        computed = self._state.computed
        if computed[-1].residual.shape != base.shape:
            raise CacheError(
                f"the pipeline changed its tokens from {tuple(computed[-1].residual.shape)} to {tuple(base.shape)} "
                f"within a run, so {self._policy.name} has nothing to add to them; run it without a caching policy"
            )
        if action is Action.REUSE:
            return computed[-1].residual
        assert self._step is not None
        forecast = self._policy.forecast(self._step, self._state.own, tuple(computed))
        shape = getattr(forecast, "shape", None)
        if shape != computed[-1].residual.shape:
            raise CacheError(
                f"{self._policy.name} forecast a residual of shape {shape and tuple(shape)} for step "
                f"{self._step.index}, the model's is {tuple(computed[-1].residual.shape)}; report it to its author"
            )
        return forecast

    def _check(self, action: Action, index: int) -> None:
        if not isinstance(action, Action):
            raise CacheError(
                f"{self._policy.name} decided {action!r} for step {index}, it must be an Action; report it to the "
                "plugin's author"
            )
        if action is not Action.COMPUTE and not self._state.computed:
            raise CacheError(
                f"{self._policy.name} decided to {action.value} in step {index} of branch "
                f"{self._state.branch.name!r}, where nothing has been computed yet; report it to the plugin's author"
            )

    def _next_step(self, hidden: Any, signal: Any) -> Step:
        return Step(len(self._state.taken), self._state.branch.num_steps, hidden, signal)

    def _read(self, first_block: Any, args: tuple[Any, ...]) -> torch.Tensor | None:
        return self._read_signal(first_block, args) if self._read_signal else None

    def _as_result(self, hidden: Any, args: tuple[Any, ...]) -> Any:
        return (hidden, args[1]) if self._returns_text else hidden


class Gate:
    """A policy in one run, with all of its branches.

    Args:
        passes_a_step: how often each branch is computed in a step of the loop; more than once by schedulers of a
            higher order.
    """

    def __init__(self, policy: CachePolicy, passes_a_step: int = 1) -> None:
        self.policy = policy
        self.branches: dict[tuple[int, str], BranchState] = {}
        self._passes_a_step = passes_a_step
        self._passes: Counter[tuple[int, str, int]] = Counter()

    def gated_pass(
        self,
        expert: int,
        branch: str,
        loop_step: int,
        make_branch: Callable[[], Branch],
        returns_text: bool,
        read_signal: SignalReader | None,
    ) -> GatedPass:
        """The next forward pass of a branch through an expert.

        Args:
            loop_step: steps of the denoising loop that are done.
            make_branch: called where the branch's first pass enters the stack.

        Raises:
            CacheError: the transformer is called more than once a step for the branch, or the branch is not told.
        """
        key = (expert, branch)
        self._passes[expert, branch, loop_step] += 1
        if self._passes[expert, branch, loop_step] > self._passes_a_step:
            raise CacheError(self._once_too_often(branch, loop_step))
        return GatedPass(self.policy, lambda: self._state(key, make_branch), returns_text, read_signal)

    def _once_too_often(self, branch: str, loop_step: int) -> str:
        if not branch:
            return (
                f"this pipeline calls its transformer twice a step and does not say for which guidance branch, so "
                f"{self.policy.name} would mix them up; a pipeline names them with transformer.cache_context(name)"
            )
        return (
            f"the transformer was called once more for the branch {branch!r} in step {loop_step}, which "
            f"{self.policy.name} would take for the next step: call it by hand outside of the run, or without "
            "cache_context; a loop of your own calls step_done() after each step"
        )

    def _state(self, key: tuple[int, str], make_branch: Callable[[], Branch]) -> BranchState:
        if key not in self.branches:
            self.branches[key] = self._start(make_branch())
        return self.branches[key]

    def _start(self, branch: Branch) -> BranchState:
        plan = self.policy.plan(branch)
        if plan is not None and len(plan) != branch.num_steps:
            raise CacheError(
                f"{self.policy.name} planned {len(plan)} steps for branch {branch.name!r}, it has "
                f"{branch.num_steps}; report it to the plugin's author"
            )
        return BranchState(branch, plan, self.policy.start(branch), deque(maxlen=max(1, self.policy.history)))

    def schedules(self) -> Mapping[str, str]:
        """What was done at each step, per branch (and expert): C computed, R reused, F forecast."""
        return {_title(key, self.branches): state.letters for key, state in self.branches.items()}

    def skipped(self) -> dict[str, int]:
        """Steps that were not computed, per branch."""
        counts: dict[str, int] = {}
        for (_, branch), state in self.branches.items():
            left_out = sum(action is not Action.COMPUTE for action in state.taken)
            counts[branch] = counts.get(branch, 0) + left_out
        return counts


def _title(key: tuple[int, str], branches: Mapping[tuple[int, str], object]) -> str:
    expert, branch = key
    several = len({expert for expert, _ in branches}) > 1
    return f"{branch} of expert {expert + 1}" if several else branch
