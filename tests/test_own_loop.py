"""Loops of the user's own, and what is called by hand beside a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from fastvideo_core import attach
from fastvideo_core.errors import AttachError, BackendNotUsedError, CacheError
from tests.support.backends import Recorder
from tests.support.models import run_to_latents as run
from tests.support.policies import Scripted


def test_a_loop_of_one_s_own(wan_pipeline: Any, recorder: Recorder) -> None:
    latents, text = torch.randn(1, 16, 3, 4, 6), torch.randn(1, 7, 16)

    def loop(steps: int, step_done: Callable[[], object] = lambda: None) -> list[torch.Tensor]:
        made = []
        for step in range(steps):
            made.append(wan_pipeline.transformer(latents, torch.tensor([900 - 100 * step]), text)[0])
            step_done()
        return made

    with torch.no_grad(), attach(wan_pipeline, attention_backend="RECORDER", cache=Scripted("CRC")) as fv:
        bare = loop(3)
        assert not recorder.seen
        with fv.run(3) as step_done:
            served = loop(3, step_done)
            with pytest.raises(AttachError, match="is generating in this thread"):
                fv.detach()
        assert fv.receipt.cache is not None
        assert fv.receipt.cache.schedule == {"": "CRC"}
        assert {seen[2] for seen in recorder.seen} == {0, 2}
        for step, same in enumerate((True, False, True)):
            assert torch.allclose(served[step], bare[step], atol=1e-5) is same
        with pytest.raises(ZeroDivisionError), fv.run(3):
            loop(1, lambda: 1 / 0)
        with pytest.raises(AttachError, match="no receipt yet"):
            _ = fv.receipt


def suspended(fv: Any, transformer: Any) -> Iterator[None]:
    """A run of four steps that stops after each, as a coroutine does."""
    latents, text = torch.zeros(1, 16, 3, 4, 6), torch.zeros(1, 7, 16)
    with torch.no_grad(), fv.run(4) as step_done:
        for _ in range(4):
            transformer(latents, torch.tensor([500]), text)
            step_done()
            yield


def test_a_run_that_is_suspended_goes_on(wan_pipeline: Any, recorder: Recorder) -> None:
    """It is nowhere on a stack, and all the same nobody else may begin, or take off what it uses."""
    with attach(wan_pipeline, attention_backend="RECORDER", cache=Scripted("CR")) as fv:
        first = suspended(fv, wan_pipeline.transformer)
        next(first)
        for other in (
            lambda: next(suspended(fv, wan_pipeline.transformer)),
            lambda: run(wan_pipeline),
            fv.detach,
            lambda: fv.use_cache("none"),
        ):
            with pytest.raises(AttachError, match="is generating in this thread"):
                other()
        assert list(first) == [None] * 3
        assert fv.receipt.cache is not None
        assert fv.receipt.cache.schedule == {"": "CRRR"}
        run(wan_pipeline)


def test_a_suspended_run_that_is_dropped_is_over(wan_pipeline: Any) -> None:
    with attach(wan_pipeline) as fv:
        dropped = suspended(fv, wan_pipeline.transformer)
        next(dropped)
        del dropped
        run(wan_pipeline)
        assert fv.receipt.steps_computed == {"cond": 3, "uncond": 3}


def loop(fv: Any, steps: int, passes: int) -> None:
    """A run with a pass in each of its first steps; `step_done` is called for all of either."""
    with fv.run(steps) as step_done, torch.no_grad():
        for step in range(max(steps, passes)):
            if step < passes:
                fv.pipe.transformer(torch.zeros(1, 16, 3, 4, 6), torch.tensor([500]), torch.zeros(1, 7, 16))
            step_done()


def test_more_steps_than_the_run_has(wan_pipeline: Any) -> None:
    with (
        attach(wan_pipeline) as fv,
        pytest.raises(AttachError, match=r"step_done\(\) was called 2 times in a run of 1 steps"),
    ):
        loop(fv, steps=1, passes=2)


@pytest.mark.parametrize("steps_done", [1, 2])
def test_a_step_without_a_pass(steps_done: int, wan_pipeline: Any) -> None:
    with (
        attach(wan_pipeline) as fv,
        pytest.raises(BackendNotUsedError, match=f"step {steps_done} ran without a forward pass of transformer"),
    ):
        loop(fv, steps=4, passes=steps_done)


def test_a_branch_that_is_called_once_more_by_hand(wan_pipeline: Any) -> None:
    """A policy would take it for the next step, and every step after it for the one after."""
    transformer = wan_pipeline.transformer

    def by_hand(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        with transformer.cache_context("cond"):
            transformer(torch.zeros(1, 16, 3, 4, 6), torch.tensor([500]), torch.zeros(1, 7, 16))
        return {}

    with attach(wan_pipeline, cache=Scripted("C")), pytest.raises(CacheError, match="once more for the branch 'cond'"):
        run(wan_pipeline, callback_on_step_end=by_hand)
