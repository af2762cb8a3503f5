from typing import Any

import pytest
import torch
from diffusers.hooks.taylorseer_cache import TaylorSeerState
from fv_taylorseer import TaylorSeer

from fastvideo_core import Computed, Step, attach
from fastvideo_core.testing import CachePolicySuite, latents, small_pipeline


class TestTaylorSeer(CachePolicySuite):
    policy = TaylorSeer(interval=4, order=2)
    never = TaylorSeer(interval=1)


@pytest.mark.parametrize(("order", "expected"), [(0, 7.0), (1, 9.0), (2, 9.0)])
def test_a_straight_line_is_forecast_exactly(order: int, expected: float) -> None:
    line = [Computed(index, torch.tensor([2.0 * index + 1])) for index in (1, 2, 3)]
    policy = TaylorSeer(order=order)
    forecast = policy.forecast(Step(4, 9, torch.zeros(1)), None, line[-order - 1 :])
    assert forecast.item() == expected


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_the_forecast_is_that_of_diffusers_own_state(order: int) -> None:
    torch.manual_seed(0)
    computed = [Computed(index, torch.randn(4, dtype=torch.float64)) for index in (0, 1, 2, 5, 8, 11)]
    state = TaylorSeerState(taylor_factors_dtype=torch.float64, max_order=order)
    for one in computed:
        state.current_step = one.index
        state.update((one.residual,))
    state.current_step = 13
    forecast = TaylorSeer(order=order).forecast(Step(13, 50, computed[0].residual), None, computed[-order - 1 :])
    torch.testing.assert_close(forecast, state.predict()[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "schedule"),
    [
        ({"interval": 3, "warm_up": 3, "order": 2}, "CCCFFCFFCFFC"),
        ({"interval": 4, "warm_up": 2, "order": 1}, "CCFFFCFFFCFC"),
        ({"interval": 2, "warm_up": 1, "order": 3}, "CFCFCFCFCFCC"),
    ],
)
def test_a_run_skips_what_it_should_and_adds_what_diffusers_own_state_forecasts(
    settings: dict[str, Any], schedule: str
) -> None:
    pipe = small_pipeline()
    entering: list[torch.Tensor] = []
    leaving: list[torch.Tensor] = []
    with attach(pipe, cache=TaylorSeer(**settings)) as fv:
        hooks = [
            pipe.transformer.patch_embedding.register_forward_hook(
                lambda module, args, output: entering.append(output.flatten(2).mT.clone())
            ),
            pipe.transformer.norm_out.register_forward_pre_hook(lambda module, args: leaving.append(args[0].clone())),
        ]
        latents(pipe, num_steps=12, guidance_scale=1.0)
        for hook in hooks:
            hook.remove()
    assert fv.receipt.cache is not None
    assert fv.receipt.cache.schedule == {"cond": schedule}
    state = TaylorSeerState(taylor_factors_dtype=torch.float32, max_order=settings["order"])
    for state.current_step, (letter, hidden, left) in enumerate(zip(schedule, entering, leaving, strict=True)):
        if letter == "C":
            state.update((left - hidden,))
        else:
            torch.testing.assert_close(left, hidden + state.predict()[0], rtol=1e-5, atol=1e-5)
