import pytest
import torch
from fv_taylorseer import TaylorSeer

from fastvideo_core import Computed, Step
from fastvideo_core.testing import CachePolicySuite


class TestTaylorSeer(CachePolicySuite):
    policy = TaylorSeer(interval=4, order=2)
    never = TaylorSeer(interval=1)


@pytest.mark.parametrize(("order", "expected"), [(0, 7.0), (1, 9.0), (2, 9.0)])
def test_a_straight_line_is_forecast_exactly(order: int, expected: float) -> None:
    line = [Computed(index, torch.tensor([2.0 * index + 1])) for index in (1, 2, 3)]
    policy = TaylorSeer(order=order)
    forecast = policy.forecast(Step(4, 9, torch.zeros(1)), None, line[-order - 1 :])
    assert forecast.item() == expected
