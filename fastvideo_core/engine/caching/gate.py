"""A policy in one run: the state of its branches, and what they share in a step of the loop."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from fastvideo_core.contract.caching import Action, Branch, CachePolicy
from fastvideo_core.contract.model import BlockStack
from fastvideo_core.engine.caching.decisions import OwnDecisions
from fastvideo_core.engine.caching.gated_pass import BranchState, GatedPass, LoopStep, SignalReader
from fastvideo_core.engine.plugin_calls import hook
from fastvideo_core.errors import CacheError


class Gate:
    """A policy in one run, with all of its branches.

    Args:
        passes_a_step: how often each branch is computed in a step of the loop; more than once by schedulers of a
            higher order.
        decisions: whose they are; None: this process's.
    """

    def __init__(self, policy: CachePolicy, passes_a_step: int = 1, decisions: OwnDecisions | None = None) -> None:
        self.policy = policy
        self._decisions = decisions or OwnDecisions()
        self.branches: dict[tuple[int, str], BranchState] = {}
        self.passes_a_step = passes_a_step
        self._passes: Counter[tuple[int, str, int]] = Counter()
        self._loop_steps: dict[int, LoopStep] = {}

    def gated_pass(
        self,
        expert: int,
        branch: str,
        loop_step: int,
        make_branch: Callable[[], Branch],
        stack: BlockStack,
        read_signal: SignalReader | None,
    ) -> GatedPass:
        """The next forward pass of a branch through an expert.

        Args:
            loop_step: steps of the denoising loop that are done.
            make_branch: called where the branch's first pass enters the stack.

        Raises:
            CacheError: the transformer is called more often in a step for the branch than the scheduler does.
        """
        self._passes[expert, branch, loop_step] += 1
        number = self._passes[expert, branch, loop_step]
        if number > self.passes_a_step:
            raise CacheError(
                f"the transformer was called once more for the branch {branch!r} in step {loop_step}, which "
                f"{self.policy.name} would take for the next step: call it by hand outside of the run, or without "
                "cache_context; a loop of your own calls step_done() after each step"
            )
        moment = (loop_step, number)
        if expert not in self._loop_steps or self._loop_steps[expert].moment != moment:
            self._loop_steps[expert] = LoopStep(moment)
        begin = partial(self._state, (expert, branch), make_branch)
        return GatedPass(self.policy, self._loop_steps[expert], begin, stack, read_signal, self._decisions)

    def _state(self, key: tuple[int, str], make_branch: Callable[[], Branch]) -> BranchState:
        if key not in self.branches:
            self.branches[key] = self._start(make_branch())
        return self.branches[key]

    def _start(self, branch: Branch) -> BranchState:
        with hook(self.policy, "plan"):
            plan = self.policy.plan(branch)
        if plan is not None and not isinstance(plan, Sequence):
            raise CacheError(
                f"the plan of {self.policy.name} is of type {type(plan).__name__}, it must be a list of actions or "
                "None; report it to the plugin's author"
            )
        plan = self._decisions.plan(plan)
        if plan is not None and len(plan) != branch.num_steps:
            raise CacheError(
                f"{self.policy.name} planned {len(plan)} steps for branch {branch.name!r}, it has "
                f"{branch.num_steps}; report it to the plugin's author"
            )
        with hook(self.policy, "start"):
            own = self.policy.start(branch)
        most = max(1, self.policy.history)
        return BranchState(branch, plan, own, deque(maxlen=most), deque(maxlen=most))

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
