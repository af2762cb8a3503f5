"""What a run is told to have done: calls by kernel, their time, and whether it was left early."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from fastvideo_core import AttentionCall, AttentionFunction, KernelUsed, Role, attach
from tests.support.backends import Recorder
from tests.support.models import SIZE, run_to_latents


class ThreeKernels(Recorder):
    """Says nothing in the first step; then one kernel for the first layer, and for the second another at the end."""

    def load(self) -> AttentionFunction:
        attend = super().load()

        def noted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            if call.step > 0:
                last = (call.layer, call.step) == (1, call.num_steps - 1)
                call.served = KernelUsed("acme.sparse", "2") if last else KernelUsed("acme.dense", "1")
            return attend(query, key, value, call)

        return noted


def test_calls_are_counted_by_kernel(wan_pipeline: Any) -> None:
    backend = ThreeKernels(roles=frozenset({Role.SELF}))
    with attach(wan_pipeline, attention_backend=backend) as fv:
        for _ in range(2):  # tallies end with their run
            run_to_latents(wan_pipeline)
            served = fv.receipt.attention["SELF"]
            found = [(one.kernel, one.version, one.calls) for one in served.kernels]
            branches = 2
            assert found == [
                ("acme.dense", "1", 3 * branches),
                ("recorder", "1", 2 * branches),
                ("acme.sparse", "2", 1 * branches),
            ]
            assert (served.kernel, served.version, served.calls) == ("acme.dense", "1", 6 * branches)
            cross = fv.receipt.attention["CROSS"]
            assert [one.calls for one in cross.kernels] == [cross.calls] == [6 * branches]


class Slow(Recorder):
    """Takes at least SECONDS a call."""

    SECONDS = 0.003

    def load(self) -> AttentionFunction:
        attend = super().load()

        def late(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            time.sleep(self.SECONDS)
            return attend(query, key, value, call)

        return late


def test_the_time_of_kernels_is_that_of_all_their_calls(wan_pipeline: Any) -> None:
    with attach(wan_pipeline, attention_backend=Slow()) as fv, fv.timed() as seconds:
        started = time.perf_counter()
        run_to_latents(wan_pipeline)
        whole = time.perf_counter() - started
    calls = sum(role.calls for role in fv.receipt.attention.values())
    assert calls * Slow.SECONDS <= seconds() < whole


@pytest.mark.parametrize("last", [0, 1, 2])
def test_a_run_that_is_left_before_its_last_step_is_interrupted(wan_pipeline: Any, last: int) -> None:
    computed: list[int] = []

    def stop(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        computed.append(step)
        pipe._interrupt = step >= last
        return {}

    with attach(wan_pipeline) as fv:
        run_to_latents(wan_pipeline, callback_on_step_end=stop)
    assert fv.receipt.num_inference_steps == SIZE["num_inference_steps"] == 3
    assert fv.receipt.steps_computed == {"cond": len(computed), "uncond": len(computed)}
    assert fv.receipt.interrupted is (last < 2)
