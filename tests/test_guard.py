"""Output that is not finite ends the run, for every backend that may overflow, unless its guard is switched off."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fv_flash import FlashAttention
from fv_sage import SageAttention
from fv_sta.backend import SlidingTileAttention

from fastvideo_core import AttentionBackend, AttentionCall, AttentionFunction, Role, attach
from fastvideo_core.contract.settings import declared_settings
from fastvideo_core.engine.attention.guard import FiniteGuard
from fastvideo_core.errors import BackendOutputError
from tests.support.backends import Recorder, plugins_with
from tests.support.models import run_to_latents as run

EVERY = ("float16", "bfloat16", "float32")


class Poisoned(Recorder):
    """May overflow; at a chosen call, its output has a NaN in it."""

    overflows_in = frozenset({"float32"})

    def __init__(self, step: int, layer: int) -> None:
        super().__init__("POISONED", roles=frozenset({Role.SELF}))
        self.place = (step, layer)
        self.calls = 0
        self.ended: list[BaseException | None] = []

    def load(self) -> AttentionFunction:
        plain = super().load()

        def attend(query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
            self.calls += 1
            result = plain(query, key, value, call)
            if (call.step, call.layer) == self.place:
                result = result.clone()
                result[0, -1, 0, 0] = float("nan")
            return result

        return attend

    def end_run(self, error: BaseException | None) -> None:
        self.ended.append(error)


class Bfloat16Alone(Poisoned):
    overflows_in = frozenset({"bfloat16"})


@pytest.mark.parametrize(("step", "layer", "calls"), [(0, 1, 2), (1, 0, 6), (2, 1, 10)])
def test_a_run_ends_at_the_first_output_that_is_not_finite(
    wan_pipeline: Any, step: int, layer: int, calls: int
) -> None:
    backend = Poisoned(step, layer)
    bare = run(wan_pipeline)
    with attach(wan_pipeline, attention_backend=backend) as fv:
        message = (
            rf"POISONED returned NaN or infinity first in layer {layer} of SELF attention, step {step}, branch 'cond'"
        )
        with pytest.raises(BackendOutputError, match=message) as raised:
            run(wan_pipeline)
        assert backend.calls == calls, "the forward pass after the fault is not run"
        assert backend.ended == [raised.value]
        backend.place = (99, 0)
        assert abs(run(wan_pipeline) - bare).max() < 1e-4
        assert fv.receipt.attention["SELF"].calls == 12


def test_the_last_call_of_a_run_is_seen(wan_pipeline: Any) -> None:
    with (
        attach(wan_pipeline, attention_backend=Poisoned(2, 1)),
        pytest.raises(
            BackendOutputError,
            match=r"layer 1 of SELF attention, step 2, .* \(1 of 2 calls .* FASTVIDEO_POISONED_GUARD=0 switches",
        ),
    ):
        run(wan_pipeline, guidance_scale=1.0)


def test_the_fallback_is_watched_too(wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Poisoned(2, 1)
    other = Recorder("OTHER", roles=frozenset({Role.SELF}), dtypes=frozenset({"float16"}))
    monkeypatch.setattr("fastvideo_core.engine.attachment.load_plugins", lambda: plugins_with(backend, other))
    monkeypatch.setenv("FASTVIDEO_ATTENTION_FALLBACK", "POISONED")
    with attach(wan_pipeline, attention_backend="OTHER"), pytest.raises(BackendOutputError, match="POISONED returned"):
        run(wan_pipeline)


@pytest.mark.parametrize(
    ("backend", "config"), [(Poisoned(1, 1), {"guard": False}), (Bfloat16Alone(1, 1), None)], ids=["off", "other dtype"]
)
def test_what_is_not_watched(wan_pipeline: Any, backend: Poisoned, config: Any) -> None:
    with attach(wan_pipeline, attention_backend=backend, attention_config=config) as fv:
        run(wan_pipeline)
        assert fv.receipt.attention["SELF"].settings == {"guard": config is None}
    assert backend.ended == [None]


@pytest.mark.parametrize(("value", "guarded"), [("", True), ("1", True), ("off", False)])
@pytest.mark.parametrize("backend", [FlashAttention, SageAttention, SlidingTileAttention])
def test_the_kernels_that_may_overflow_have_a_guard_to_switch_off(
    monkeypatch: pytest.MonkeyPatch, backend: type[AttentionBackend], value: str, guarded: bool
) -> None:
    assert "float16" in backend.overflows_in
    (declared,) = (one for one in declared_settings(backend) if one.name == "guard")
    monkeypatch.setenv(declared.variable, value)
    assert backend().is_guarded is guarded


def test_a_backend_that_cannot_overflow_has_none() -> None:
    assert declared_settings(Recorder()) == []
    assert not Recorder().is_guarded


def guarded_calls(*outputs: torch.Tensor) -> FiniteGuard:
    """A guard that has seen these outputs, each in a step of its own."""
    guard = FiniteGuard("TEST", EVERY, "TEST_GUARD")
    for step, output in enumerate(outputs):
        guard.next_pass()
        guard.see(output, AttentionCall(Role.SELF, 3, step, len(outputs), "cond"))
    return guard


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 777, 1023])
def test_one_number_that_is_not_finite_is_noticed(dtype: torch.dtype, value: float, place: int) -> None:
    bad = torch.ones(1024, dtype=dtype)
    bad[place] = value
    good = torch.ones(1, 8, 2, 64, dtype=dtype)
    with pytest.raises(BackendOutputError, match=r"TEST .* layer 3 of SELF attention, step 1, .* \(1 of 1 calls"):
        guarded_calls(good, bad.view(1, 8, 2, 64)).finish()
    with pytest.raises(BackendOutputError, match=r"step 0.*TEST_GUARD=0 switches this check off"):
        guarded_calls(bad.view(1, 8, 2, 64), good)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_finite_numbers_are_taken(dtype: torch.dtype, sign: int) -> None:
    """A float32 sum of two of bfloat16's is infinity; a largest and a smallest of them add up to 0."""
    output = torch.full((1, 8, 2, 64), sign * torch.finfo(dtype).max, dtype=dtype)
    guarded_calls(output, output).finish()


def test_infinities_that_cancel_out_are_noticed() -> None:
    output = torch.tensor([math.inf, -math.inf]).view(1, 1, 1, 2)
    with pytest.raises(BackendOutputError):
        guarded_calls(output).finish()


def test_a_run_that_was_broken_off_in_its_first_step_is_not_told_of_in_the_next(wan_pipeline: Any) -> None:
    backend = Poisoned(0, 1)

    def stop(pipe: Any, step: int, timestep: Any, values: Any) -> Any:
        raise KeyboardInterrupt

    with attach(wan_pipeline, attention_backend=backend):
        with pytest.raises(KeyboardInterrupt):
            run(wan_pipeline, callback_on_step_end=stop, guidance_scale=1.0)
        backend.place = (99, 0)
        run(wan_pipeline)
