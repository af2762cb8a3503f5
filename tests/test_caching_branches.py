"""What guidance branches share: one decision, and what the others add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import Action, Attachment, Branch, Computed, Signal, Step, attach
from tests.support.models import build_wan_pipeline
from tests.support.models import run_to_latents as run
from tests.support.policies import Scripted


def schedules(fv: Attachment) -> dict[str, str]:
    assert fv.receipt.cache is not None
    return fv.receipt.cache.schedule


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("signal", [Signal.NONE, Signal.HIDDEN, Signal.FIRST_BLOCK_OUTPUT])
def test_the_first_branch_of_a_step_decides_for_the_other(wan_pipeline: Any, signal: Signal, ahead: bool) -> None:
    apart = Scripted("CRCFR", signal, ahead)
    together = Scripted("CRCFR", signal, ahead, branches_decide_together=True)
    with attach(wan_pipeline, cache=apart) as fv:
        expected = run(wan_pipeline, num_inference_steps=5)
        fv.use_cache(together)
        assert np.array_equal(run(wan_pipeline, num_inference_steps=5), expected)
        assert schedules(fv) == {"cond": "CRCFR", "uncond": "CRCFR"}
    if not ahead:
        assert len(apart.steps) == 10
        assert [step.index for step in together.steps] == [0, 1, 2, 3, 4]
    for one, other in zip(apart.residuals, together.residuals, strict=True):
        assert torch.equal(one, other)


def test_each_evaluation_of_a_step_is_decided_by_itself(wan_pipeline: Any) -> None:
    """Heun's scheduler evaluates the model twice a step, but for the last one."""
    from diffusers import FlowMatchHeunDiscreteScheduler

    wan_pipeline.scheduler = FlowMatchHeunDiscreteScheduler()
    policy = Scripted("CRCFR", branches_decide_together=True)
    with attach(wan_pipeline, cache=policy) as fv:
        run(wan_pipeline, num_inference_steps=3)
        assert schedules(fv) == {"cond": "CRCFR", "uncond": "CRCFR"}
    assert [step.index for step in policy.steps] == [0, 1, 2, 3, 4]


def test_each_expert_decides_for_its_own_steps() -> None:
    pipe = build_wan_pipeline(experts=2)
    with attach(pipe, cache=Scripted("CR", branches_decide_together=True)) as fv:
        run(pipe, num_inference_steps=6)
        letters = schedules(fv)
    assert set(letters) == {f"{branch} of expert {number}" for branch in ("cond", "uncond") for number in (1, 2)}
    for branch, schedule in letters.items():
        assert schedule == "C" + "R" * (len(schedule) - 1), branch
        assert len(schedule) > 1


class GuidanceFromTheThirdStep(Scripted):
    """Asks for what the loop does, whatever the index of the branch."""

    def _action(self, index: int) -> Action:
        return Action.REUSE if index else Action.COMPUTE


def test_a_branch_without_a_residual_computes(wan_pipeline: Any) -> None:
    """As with guidance that begins late: the first branch reuses, the other has nothing yet."""
    policy = GuidanceFromTheThirdStep(branches_decide_together=True)
    made = run_by_hand(wan_pipeline, policy, ["cond", "cond", "cond uncond", "cond uncond"])
    assert made == {"cond": "CRRR", "uncond": "CR"}


def run_by_hand(pipe: Any, policy: Scripted, steps: list[str]) -> dict[str, str]:
    """A loop whose branches change from step to step."""
    inputs = {
        "hidden_states": torch.randn(1, 16, 3, 4, 6),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 4, 16),
    }
    with attach(pipe, cache=policy) as fv:
        with fv.run(len(steps)) as step_done, torch.no_grad():
            for branches in steps:
                for branch in branches.split():
                    with pipe.transformer.cache_context(branch):
                        pipe.transformer(**inputs)
                step_done()
        return schedules(fv)


class Watching(Scripted):
    """Keeps what it was shown of the other branches."""

    def __init__(self, script: str, **options: Any) -> None:
        super().__init__(script, **options)
        self.shown: list[dict[str, torch.Tensor]] = []

    def decide(self, step: Step, state: Any) -> Action:
        self.shown.append(dict(step.others))
        return super().decide(step, state)


def test_the_other_branches_residuals_of_the_step_are_seen(wan_pipeline: Any) -> None:
    policy = Watching("CRC", sees_others=True)
    with attach(wan_pipeline, cache=policy):
        run(wan_pipeline, num_inference_steps=3)
    assert [set(others) for others in policy.shown] == [set(), {"cond"}] * 3
    computed_0, computed_2 = policy.residuals[0], policy.residuals[2]
    for others, expected in zip(policy.shown[1::2], (computed_0, computed_0, computed_2), strict=True):
        assert torch.equal(others["cond"], expected)


def test_nothing_is_kept_for_who_does_not_look(wan_pipeline: Any) -> None:
    policy = Watching("C")
    with attach(wan_pipeline, cache=policy):
        run(wan_pipeline)
    assert policy.shown
    assert not any(policy.shown)


class Follows(Scripted):
    """Skips in one branch alone: adds what the other adds, and the difference that was kept."""

    def plan(self, branch: Branch) -> list[Action] | None:
        every = Action.FORECAST if branch.name == "uncond" else Action.COMPUTE
        return [Action.COMPUTE, *[every] * (branch.num_steps - 1)]

    def start(self, branch: Branch) -> dict[str, Any]:
        return {}

    def forecast(self, step: Step, state: Any, computed: Sequence[Computed]) -> torch.Tensor:
        self.steps.append(step)
        return step.others["cond"]


def test_one_branch_alone_may_skip(wan_pipeline: Any) -> None:
    policy = Follows(sees_others=True)
    with attach(wan_pipeline, cache=policy) as fv:
        run(wan_pipeline, num_inference_steps=4)
    assert schedules(fv) == {"cond": "CCCC", "uncond": "CFFF"}
    assert [step.index for step in policy.steps] == [1, 2, 3]
    for step, cond in zip(policy.steps, policy.residuals[2:], strict=True):
        assert torch.equal(step.others["cond"], cond)
