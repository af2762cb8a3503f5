"""How a policy meets a block stack: it decides at its entry, or behind its first blocks; a residual is taken behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fastvideo_core.contract.caching import Action, Branch, CachePolicy, Computed, Signal, Step
from fastvideo_core.contract.model import BlockStack
from fastvideo_core.engine.caching.decisions import OwnDecisions
from fastvideo_core.engine.plugin_calls import hook
from fastvideo_core.errors import CacheError

if TYPE_CHECKING:
    import torch

SignalReader = Callable[[Any, tuple[Any, ...]], "torch.Tensor"]
"""A signal from the first block and the arguments that it is called with."""

_LETTERS = {Action.COMPUTE: "C", Action.REUSE: "R", Action.FORECAST: "F"}


@dataclass
class BranchState:
    """Where a branch stands.

    Attributes:
        computed: the latest residuals of the video; `second` those of the text or of a second stream, where blocks that
            run or the model itself take what they have made of it.
    """

    branch: Branch
    plan: Sequence[Action] | None
    own: Any
    computed: deque[Computed]
    second: deque[Computed]
    taken: list[Action] = field(default_factory=list)

    @property
    def letters(self) -> str:
        """C, R or F for each step so far."""
        return "".join(_LETTERS[action] for action in self.taken)


@dataclass
class LoopStep:
    """What the branches of one step of the denoising loop share, through one expert.

    Attributes:
        moment: steps of the loop that were done before, and which evaluation of the model it is in the step.
        action: what the branch that came first decided; None before it has, or where each decides for itself.
        residuals: by branch, what has been added or computed; empty where nobody looks. `second` likewise of a second
            stream.
    """

    moment: tuple[int, int]
    action: Action | None = None
    residuals: dict[str, Any] = field(default_factory=dict)
    second: dict[str, Any] = field(default_factory=dict)


class GatedPass:
    """One forward pass through a block stack: `enter` stands before the first block, `leave` behind the last to skip.

    `after_first` stands behind the first blocks, for a policy that always computes some.
    """

    def __init__(
        self,
        policy: CachePolicy,
        loop_step: LoopStep,
        begin: Callable[[], BranchState],
        stack: BlockStack,
        read_signal: SignalReader | None,
        decisions: OwnDecisions | None = None,
    ) -> None:
        self.skips = False
        """Whether the blocks that can be are left out; known once the policy has decided."""
        self.decided = False
        self.first_blocks, self.last_blocks = always_run(policy)
        self._policy, self._loop_step, self._begin = policy, loop_step, begin
        self._stack, self._read_signal = stack, read_signal
        self._decisions = decisions or OwnDecisions()
        self._entered: tuple[Any, ...] = ()
        self._signal: Any = None
        self._base: tuple[Any, ...] = ()

    @property
    def always_run(self) -> int:
        """How many blocks run where the others are skipped."""
        return self.first_blocks + self.last_blocks

    def enter(self, first_block: Any, args: tuple[Any, ...]) -> Any:
        """Stand in for a block that is called with the arguments of the first one."""
        # Only now are the model's own modules where they can run: offloading brings some of them as its forward starts.
        self._state = self._begin()
        self._entered = args[:2]
        self._check_tokens(args)
        if self._is_asked() and self._policy.signal is not Signal.FIRST_BLOCK_OUTPUT:
            self._signal = self._read(first_block, args)
        if self.first_blocks:
            return self._as_result(args[0], args)
        return self._decide(args)

    def after_first(self, args: tuple[Any, ...]) -> Any:
        """Stand in for a block that is called with what the last of the first ones returned."""
        if self._is_asked() and self._policy.signal is Signal.FIRST_BLOCK_OUTPUT:
            self._signal = args[0]
        return self._decide(args)

    def leave(self, args: tuple[Any, ...]) -> Any:
        """Stand in for a block that is called with what the last one that can be skipped returned."""
        residual, base = args[0] - self._base[0], self._base
        self._base = ()
        self._state.computed.append(Computed(self._step.index, residual))
        with hook(self._policy, "observe"):
            self._policy.observe(self._step, self._state.own, residual)
        self._show_others(self._loop_step.residuals, residual)
        if self._keeps_second():
            second = args[1] - base[1]
            self._state.second.append(Computed(self._step.index, second))
            self._show_others(self._loop_step.second, second)
        return self._as_result(args[0], args)

    def _decide(self, args: tuple[Any, ...]) -> Any:
        """Let the policy decide; a residual is added to what the arguments begin with."""
        state, index = self._state, len(self._state.taken)
        self._step = Step(
            index,
            state.branch.num_steps,
            self._entered[0],
            self._signal,
            MappingProxyType(dict(self._loop_step.residuals)),
        )
        action = self._action()
        self.decided = True
        state.taken.append(action)
        self.skips = action is not Action.COMPUTE
        if not self.skips:
            self._base = args[:2]
            return self._as_result(args[0], args)
        residual = self._residual(action, state.computed, self._step)
        self._show_others(self._loop_step.residuals, residual)
        if self._keeps_second():
            args = (args[0], args[1] + self._residual_of_second(action), *args[2:])
        return self._as_result(args[0] + residual, args)

    def _is_asked(self) -> bool:
        """Whether the policy looks at this pass: it has no plan, and no other branch has decided for this one."""
        return self._state.plan is None and self._loop_step.action is None and self._is_decided_here()

    def _action(self) -> Action:
        state, index = self._state, self._step.index
        if self._loop_step.action is not None:
            return self._loop_step.action if state.computed else Action.COMPUTE
        together = self._policy.branches_decide_together
        own = self._own_action(index) if self._is_decided_here() else None
        action = self._decisions.action(own, state.plan is not None, together) or Action.COMPUTE
        if own is None and not state.computed:
            action = Action.COMPUTE  # another branch's decision
        self._check(action, index)
        if together:
            self._loop_step.action = action
        return action

    def _own_action(self, index: int) -> Action:
        plan = self._state.plan
        if plan is None:
            with hook(self._policy, "decide"):
                action = self._policy.decide(self._step, self._state.own)
            self._check(action, index)
            return action
        return plan[index] if index < len(plan) else Action.COMPUTE

    def _is_decided_here(self) -> bool:
        return self._decisions.leads or not self._policy.branches_decide_together

    def _residual_of_second(self, action: Action) -> Any:
        """What is added to text, the latest; or to a second stream, what the policy wants."""
        if not self._stack.second_stream:
            return self._state.second[-1].residual
        others = MappingProxyType(dict(self._loop_step.second))
        step = replace(self._step, hidden=self._entered[1], others=others)
        residual = self._residual(action, self._state.second, step)
        self._show_others(self._loop_step.second, residual)
        return residual

    def _check_tokens(self, args: tuple[Any, ...]) -> None:
        """Raise CacheError if they are others than those that residuals and signals were kept of."""
        for computed, now in zip((self._state.computed, self._state.second), args, strict=False):
            if not computed or computed[-1].residual.shape == now.shape:
                continue
            raise CacheError(
                f"the pipeline changed its tokens from {tuple(computed[-1].residual.shape)} to {tuple(now.shape)} "
                f"within a run, so {self._policy.name} has nothing to add to them; run it without a caching policy"
            )

    def _residual(self, action: Action, computed: deque[Computed], step: Step) -> Any:
        if action is Action.REUSE:
            return computed[-1].residual
        with hook(self._policy, "forecast"):
            forecast = self._policy.forecast(step, self._state.own, tuple(computed))
        found, expected = _describe(forecast), _describe(computed[-1].residual)
        if found != expected:
            raise CacheError(
                f"{self._policy.name} forecast {found} for step {self._step.index}, the model's residual is "
                f"{expected}; report it to its author"
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

    def _show_others(self, residuals: dict[str, Any], residual: Any) -> None:
        if self._policy.sees_others:
            residuals[self._state.branch.name] = residual

    def _keeps_second(self) -> bool:
        """Whether what is skipped would have changed something else that is used behind it.

        A second stream always is; text where blocks run behind those that are skipped, and take it of these.
        """
        return self._stack.second_stream or (self._stack.returns_text and self.last_blocks > 0)

    def _read(self, first_block: Any, args: tuple[Any, ...]) -> torch.Tensor | None:
        if self._policy.signal is Signal.HIDDEN:
            hidden: torch.Tensor = args[0]
            return hidden
        return self._read_signal(first_block, args) if self._read_signal else None

    def _as_result(self, hidden: Any, args: tuple[Any, ...]) -> Any:
        return (hidden, args[1]) if self._stack.returns_two else hidden


def _describe(residual: Any) -> str:
    shape = getattr(residual, "shape", None)
    if shape is None:
        return f"a {type(residual).__name__}"
    return f"{tuple(shape)} in {residual.dtype} on {getattr(residual, 'device', None)}"


def always_run(policy: CachePolicy) -> tuple[int, int]:
    """How many of the first and of the last blocks run in every step.

    Raises:
        CacheError: the policy gives something else than whole numbers from 0 on.
    """
    for name in ("first_blocks", "last_blocks"):
        value = getattr(policy, name)
        if not isinstance(value, int) or value < 0:
            raise CacheError(
                f"{policy.name} has {name}={value!r}, it must be a whole number from 0 on; report it to the plugin's "
                "author"
            )
    least = int(policy.signal is Signal.FIRST_BLOCK_OUTPUT)
    return max(policy.first_blocks, least), policy.last_blocks
