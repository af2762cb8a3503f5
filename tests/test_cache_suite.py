"""The suite for caching policies passes a sound one and fails each seeded fault; its tests cannot be overridden."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core import Action, Branch, Computed, Signal, Step
from fastvideo_core.testing import CachePolicySuite
from tests.support import faulty_policies
from tests.support.faulty_policies import Sound
from tests.support.inner_run import failures

pytestmark = pytest.mark.slow


class TestSound(CachePolicySuite):
    policy = Sound()
    never = Sound(skips=False)


class Follows(Sound):
    """All that is new, used soundly: one branch skips by what the other adds, between first and last blocks."""

    signal = Signal.HIDDEN
    sees_others = True
    first_blocks, last_blocks = 1, 1

    def plan(self, branch: Branch) -> list[Action]:
        skips = self.skips and branch.name == "uncond"
        return [Action.FORECAST if skips and index % 3 else Action.COMPUTE for index in range(branch.num_steps)]

    def start(self, branch: Branch) -> dict[str, Any]:
        return {"skips": self.skips and branch.name == "uncond"}

    def decide(self, step: Step, state: Any) -> Action:
        return Action.FORECAST if state["skips"] and step.index % 3 else Action.COMPUTE

    def forecast(self, step: Step, state: Any, computed: Sequence[Computed]) -> torch.Tensor:
        return (step.others["cond"] + computed[-1].residual) / 2


class TestFollows(CachePolicySuite):
    policy = Follows()
    never = Follows(skips=False)


BRANCHES = "test_branches_know_nothing_of_one_another"
TWICE = "test_the_same_run_is_the_same_twice"
RUNS = "test_runs_know_nothing_of_one_another"
SETTINGS = "test_its_settings_stay_as_they_are"
ALONE = "test_what_it_is_given_is_left_alone"
PLAN = "test_the_plan_is_what_would_be_decided"
SKIPS = "test_it_skips_some_steps_and_never_the_first"

FAULTS: dict[str, set[str]] = {
    "KeepsStateItself": {BRANCHES, TWICE, RUNS, SETTINGS},
    "Random": {TWICE},
    "PlansSomethingElse": {PLAN},
    "SkipsTheFirst": {SKIPS},
    "SkipsAllTheSame": {"test_settings_that_skip_nothing_change_nothing"},
    "NeverSkips": {SKIPS},
    "WritesResiduals": {ALONE},
    "WritesHidden": {ALONE},
    "Waits": {"test_nothing_waits_for_the_device_unless_the_signal_must_be_read"},
    "ChangesItsSettings": {SETTINGS},
    "LeavesSomethingBehind": {SETTINGS},
    "ForecastsAnotherShape": {SKIPS},
    "MixesBranches": {BRANCHES, SETTINGS},
    "SkipsTheFirstOfOneBranch": {SKIPS},
    "DecidesTogetherByWhatFollows": {BRANCHES, SETTINGS},
    "SeesOthersUnasked": {SKIPS},
    "WritesOthers": {ALONE},
    "ReadsWhatEntersUnasked": {"test_nothing_waits_for_the_device_unless_the_signal_must_be_read"},
    "FewerBlocksThanNone": {SKIPS},
    "MoreBlocksThanThereAre": {SKIPS},
    "ForgetsGraphs": {"test_compiled_blocks_make_no_more_graphs"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_seeded_fault_fails_the_suite(fault: str, tmp_path: Path) -> None:
    source = f"""
from fastvideo_core import Action, Branch, Computed, Signal, Step
from fastvideo_core.testing import CachePolicySuite
from tests.support.faulty_policies import {fault}

class TestFault(CachePolicySuite):
    policy = {fault}()
    never = {fault}(skips=False)
"""
    assert failures(tmp_path, source, "-k", " or ".join(FAULTS[fault])).keys() == FAULTS[fault]


def test_every_fault_is_tried() -> None:
    kinds = {
        name
        for name, value in vars(faulty_policies).items()
        if isinstance(value, type) and issubclass(value, Sound) and value is not Sound
    }
    assert kinds == set(FAULTS)


def test_a_test_of_the_suite_cannot_be_replaced() -> None:
    with pytest.raises(TypeError, match=r"Mine replaces test_the_same_run_is_the_same_twice of CachePolicySuite"):
        type("Mine", (CachePolicySuite,), {"test_the_same_run_is_the_same_twice": lambda self: None})
