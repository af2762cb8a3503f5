from typing import Any

import pytest
import torch
from fv_easycache import EasyCache

from fastvideo_core import Action, Branch, CachedModel, Step, attach
from fastvideo_core.errors import InputError
from fastvideo_core.testing import CachePolicySuite, latents, small_pipeline


class TestEasyCache(CachePolicySuite):
    policy = EasyCache(threshold=0.2)
    never = EasyCache(threshold=0)


class TestEachBranchForItself(CachePolicySuite):
    policy = EasyCache(threshold=0.2, branches_decide_together=False)
    never = EasyCache(threshold=0, branches_decide_together=False)


class Published:
    """The published rule for a pair of passes, told what enters each, and what leaves those that are computed."""

    def __init__(self, threshold: float, warm_up: int, num_steps: int) -> None:
        self.thresh, self.first, self.last = threshold, warm_up, num_steps - 1
        self.step, self.error = 0, 0.0
        self.k: Any = None
        self.input: Any = None
        self.computed_input: Any = None
        self.output: Any = None

    def computes(self, entering: torch.Tensor) -> bool:
        computes = True
        if self.step < self.first or self.step >= self.last:
            self.error = 0.0
        elif self.k is not None and self.output is not None:
            self.error += (self.k * ((entering - self.input).abs().mean() / self.output.abs().mean())).item()
            computes = self.error >= self.thresh
            self.error = self.error if not computes else 0.0
        self.input = entering
        self.step += 1
        return computes

    def computed(self, entering: torch.Tensor, output: Any) -> None:
        if self.output is not None:
            self.k = (output - self.output).abs().mean() / (entering - self.computed_input).abs().mean()
        self.computed_input, self.output = entering, output


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("threshold", "warm_up"), [(0.1, 5), (0.2, 5), (0.5, 3), (0.2, 1)])
def test_it_skips_where_the_published_rule_does_and_adds_the_latest_residual(
    threshold: float, warm_up: int, together: bool
) -> None:
    pipe = small_pipeline()
    entering: list[torch.Tensor] = []
    leaving: list[torch.Tensor] = []
    with attach(pipe, cache=EasyCache(threshold, warm_up, together)) as fv:
        hooks = [
            pipe.transformer.patch_embedding.register_forward_hook(
                lambda module, args, output: entering.append(output.flatten(2).mT.clone())
            ),
            pipe.transformer.norm_out.register_forward_pre_hook(lambda module, args: leaving.append(args[0].clone())),
        ]
        latents(pipe, num_steps=20)
        for hook in hooks:
            hook.remove()
    assert fv.receipt.cache is not None
    schedule = fv.receipt.cache.schedule
    assert "RC" in schedule["cond"]
    residual: dict[int, torch.Tensor] = {}
    rules = [Published(threshold, warm_up, 20) for _ in range(2)]
    for step in range(20):
        computes = True
        for number, branch in enumerate(("cond", "uncond")):
            came, left = entering[2 * step + number], leaving[2 * step + number]
            if number == 0 or not together:
                computes = rules[number].computes(came)
            assert schedule[branch][step] == ("C" if computes else "R")
            if computes:
                rules[number].computed(came, left)
                residual[number] = left - came
            else:
                assert torch.equal(left, came + residual[number])


@pytest.mark.parametrize(("threshold", "action"), [(0.5, Action.COMPUTE), (0.501, Action.REUSE)])
def test_a_prediction_as_large_as_the_threshold_computes(threshold: float, action: Action) -> None:
    """As published: `if self.accumulated_error < self.thresh: should_calc = False`."""
    policy = EasyCache(threshold, warm_up=1)
    state = policy.start(Branch(CachedModel("m", "Wan", "", None, frozenset(), frozenset()), "cond", 0, 9))
    ones = torch.ones(1, 6, 8)
    for index, (entered, left) in enumerate([(1, 2), (2, 4)]):  # the output changes twice as much as the input
        step = Step(index, 9, entered * ones, entered * ones)
        assert policy.decide(step, state) is Action.COMPUTE
        policy.observe(step, state, (left - entered) * ones)
    assert policy.decide(Step(2, 9, 3 * ones, 3 * ones), state) is action


def test_what_it_does_unless_told_otherwise() -> None:
    """`ret_steps = 5`, as published for HunyuanVideo, and branches together, as the README says."""
    assert EasyCache().settings_used() == {"threshold": 0.05, "warm_up": 5, "branches_decide_together": True}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": -1}, "threshold is '-1': input should be greater than or equal to 0"),
        ({"warm_up": 0}, "warm_up is '0': input should be greater than or equal to 1"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EasyCache(**settings)
