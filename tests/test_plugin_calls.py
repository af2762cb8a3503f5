"""Whatever a hook of a backend or a policy does in a run, it is named, and the pipeline is left whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from fastvideo_core import (
    Action,
    AttentionBackend,
    CachePolicy,
    Capabilities,
    KernelUsed,
    Probe,
    Role,
    TokenOrder,
    attach,
    setting,
)
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.errors import BackendError, CacheError, FastVideoError, PluginError
from tests.support.backends import plugins_with
from tests.support.models import build_wan_pipeline
from tests.support.models import run_to_latents as run

Attempt = Callable[..., Any]


def fails(error: BaseException) -> Callable[..., Any]:
    def raises(*arguments: Any, **named: Any) -> Any:
        raise error

    return raises


def policy(**changes: Any) -> CachePolicy:
    """One that reuses every second step, with some attributes changed."""
    usual = {
        "name": "ODD",
        "decide": lambda self, step, state: Action.REUSE if step.index % 2 else Action.COMPUTE,
        "forecast": lambda self, step, state, computed: computed[-1].residual,
    }
    made: CachePolicy = type("Odd", (CachePolicy,), usual | changes)()
    return made


def forecaster(forecast: Callable[[torch.Tensor], Any]) -> CachePolicy:
    return policy(
        decide=lambda self, step, state: Action.FORECAST if step.index else Action.COMPUTE,
        forecast=lambda self, step, state, computed: forecast(computed[-1].residual),
    )


def attention(query: Any, key: Any, value: Any, call: Any) -> Any:
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=call.scale).transpose(1, 2)


def backend(**changes: Any) -> AttentionBackend:
    """One that is right, with some attributes changed."""
    usual = {
        "name": "ODD",
        "capabilities": Capabilities(roles=frozenset(Role), lossless=True),
        "probe": lambda self: Probe(True, kernel="odd", version="1"),
        "load": lambda self: attention,
    }
    made: AttentionBackend = type("Odd", (AttentionBackend,), usual | changes)()
    return made


def ordered(gather: Any, scatter: Any) -> AttentionBackend:
    return backend(token_order=lambda self, layout, device: TokenOrder(gather, scatter))


def served(kernel: Any) -> AttentionBackend:
    def attend(query: Any, key: Any, value: Any, call: Any) -> Any:
        call.served = kernel
        return attention(query, key, value, call)

    return backend(load=lambda self: attend)


@pytest.fixture(scope="module")
def installed() -> Iterator[None]:
    """Plugins that are looked up once."""
    found = load_plugins()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastvideo_core.engine.attachment.load_plugins", lambda: found)
        yield


@pytest.fixture(scope="module")
def attempt(installed: None) -> Attempt:
    """The receipt of a run on one pipeline, which is as it was behind each."""
    pipe = build_wan_pipeline()
    pipe.set_progress_bar_config(disable=True)
    before = run(pipe, num_inference_steps=2)

    def attempt(**asked: Any) -> Any:
        try:
            with attach(pipe, **asked) as attached:
                run(pipe, num_inference_steps=2)
                return attached.receipt
        finally:
            assert (run(pipe, num_inference_steps=2) == before).all()

    return attempt


POLICY_HOOKS = ("for_model", "plan", "start", "decide", "observe", "start_run", "end_run")
BACKEND_HOOKS = ("token_order", "start_run", "end_run")


@pytest.mark.parametrize("hook", [*POLICY_HOOKS, "forecast"])
def test_an_error_of_a_policy_is_told_to_be_its(attempt: Attempt, hook: str) -> None:
    forecasts = {"decide": lambda self, step, state: Action.FORECAST if step.index else Action.COMPUTE}
    odd = {**(forecasts if hook == "forecast" else {}), hook: fails(ZeroDivisionError("no luck"))}
    with pytest.raises(ZeroDivisionError, match="no luck") as told:
        attempt(cache=policy(**odd))
    assert f"in {hook} of ODD" in told.value.__notes__
    with pytest.raises(PluginError, match=f"{hook} of ODD ended in SystemExit: 0, which would end the program; report"):
        attempt(cache=policy(**{**odd, hook: fails(SystemExit(0))}))


@pytest.mark.parametrize("hook", BACKEND_HOOKS)
def test_an_error_of_a_backend_is_told_to_be_its(attempt: Attempt, hook: str) -> None:
    with pytest.raises(ZeroDivisionError, match="no luck") as told:
        attempt(attention_backend=backend(**{hook: fails(ZeroDivisionError("no luck"))}))
    assert f"in {hook} of ODD" in told.value.__notes__
    with pytest.raises(PluginError, match=f"{hook} of ODD ended in SystemExit: 0"):
        attempt(attention_backend=backend(**{hook: fails(SystemExit(0))}))


def test_ctrl_c_stays_what_it_is(attempt: Attempt) -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt(cache=policy(decide=fails(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        attempt(attention_backend=backend(load=fails(KeyboardInterrupt())))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"for_model": lambda self, model: None}, "for_model of ODD returned 'None', it must be a caching policy"),
        ({"plan": lambda self, branch: 5}, "the plan of ODD is of type int, it must be a list of actions or None"),
        ({"plan": lambda self, branch: iter([Action.COMPUTE])}, "the plan of ODD is of type list_iterator, it must be"),
        ({"signal": "HIDDEN"}, "ODD has signal='HIDDEN', it must be of type Signal"),
        ({"history": "3"}, "ODD has history='3', it must be of type int"),
        ({"branches_decide_together": "no"}, "ODD has branches_decide_together='no', it must be of type bool"),
        ({"sees_others": None}, "ODD has sees_others=None, it must be of type bool"),
    ],
)
def test_what_a_policy_says_is_of_the_type_that_it_must_be(
    attempt: Attempt, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(CacheError, match=problem):
        attempt(cache=policy(**changes))


@pytest.mark.parametrize(
    ("forecast", "found"),
    [
        (lambda residual: None, "a NoneType"),
        (lambda residual: residual[:, :1], r"\(1, 1, 32\) in torch.float32 on cpu"),
        (lambda residual: residual.double(), r"\(1, 18, 32\) in torch.float64 on cpu"),
        (lambda residual: residual.int(), r"\(1, 18, 32\) in torch.int32 on cpu"),
        (lambda residual: residual.numpy(), r"\(1, 18, 32\) in float32 on "),
    ],
)
def test_a_forecast_is_of_the_kind_of_a_residual(
    attempt: Attempt, forecast: Callable[[torch.Tensor], Any], found: str
) -> None:
    expected = rf"ODD forecast {found}.* for step 1, the model's residual is \(1, 18, 32\) in torch.float32 on cpu"
    with pytest.raises(CacheError, match=expected):
        attempt(cache=forecaster(forecast))


def test_a_policy_that_lacks_its_name_or_its_decision_is_none() -> None:
    from fastvideo_core.discovery.provided import checked_policy

    class Nameless(CachePolicy):
        def decide(self, step: Any, state: Any) -> Action:
            return Action.COMPUTE

    class Undecided(CachePolicy):
        name = "UNDECIDED"

    with pytest.raises(PluginError, match="policy's name must be text that stands in the class, not None"):
        checked_policy(Nameless)
    with pytest.raises(PluginError, match="the caching policy UNDECIDED has no decide"):
        checked_policy(Undecided)


def test_objects_have_a_name_as_well(attempt: Attempt) -> None:
    with pytest.raises(PluginError, match="name 'odd one' is not upper case"):
        attempt(cache=policy(name="odd one"))
    for name in (None, "odd one", 5):
        with pytest.raises(PluginError, match="the backend name"):
            attempt(attention_backend=backend(name=name))


TOKENS = torch.arange(18)


@pytest.mark.parametrize(
    ("odd", "problem"),
    [
        (
            backend(token_order=lambda self, layout, device: "x"),
            "its token_order is of type str, it must be TokenOrder",
        ),
        (ordered([0] * 18, TOKENS), "gather of its token_order must be an int64 tensor with one axis"),
        (ordered(TOKENS, TOKENS.float()), "scatter of its token_order must be an int64 tensor with one axis"),
        (ordered(TOKENS, TOKENS[1:]), "its token_order has 17 tokens in 18 places, the video has 18 tokens"),
        (ordered(TOKENS[1:], TOKENS), "its token_order has 18 tokens in 17 places"),
        (ordered(TOKENS + 1, TOKENS), "gather of its token_order goes from 1 to 18, of 18 places"),
        (ordered(TOKENS, TOKENS - 1), "scatter of its token_order goes from -1 to 16, of 18 places"),
        (ordered(TOKENS.flip(0), TOKENS), r"gather\[scatter\] of its token_order is not every token in turn"),
        (served("odd"), "it set call.served to 'odd', it must be a KernelUsed"),
        (served(("odd", "1")), "it set call.served to .*, it must be a KernelUsed"),
        (backend(load=lambda self: None), "loading it raised TypeError: load returned None, which is no function"),
        (backend(load=fails(SystemExit(3))), "loading it raised SystemExit: 3"),
        (
            backend(load=lambda self: fails(SystemExit(3))),
            "layer 0, step 0, .* it raised SystemExit: 3, which would end",
        ),
        (
            backend(settings_type=int),
            "is broken: its take_settings raised TypeError: settings_type must be a dataclass",
        ),
        (backend(overflows_in="float16"), "is broken: .* overflows_in must be a frozenset of str, not 'float16'"),
    ],
)
def test_what_a_backend_must_not_do(attempt: Attempt, odd: AttentionBackend, problem: str) -> None:
    with pytest.raises(BackendError, match=f"ODD.*{problem}"):
        attempt(attention_backend=odd)


def test_a_right_order_and_a_kernel_that_is_named(attempt: Attempt) -> None:
    assert attempt(attention_backend=ordered(TOKENS.flip(0), TOKENS.flip(0))).attention["SELF"].calls == 8
    kernels = attempt(attention_backend=served(KernelUsed("odd.kernel", "3"))).attention["SELF"].kernels
    assert [(one.kernel, one.version, one.calls) for one in kernels] == [("odd.kernel", "3", 8)]


def test_settings_of_which_nothing_can_be_made(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Broken(CachePolicy):
        name = "BROKEN"
        level: int = setting(1, "how much")

        def __post_init__(self) -> None:
            raise SystemExit(4)

        def decide(self, step: Any, state: Any) -> Action:
            return Action.COMPUTE

    monkeypatch.setattr("fastvideo_core.engine.attachment.load_plugins", lambda: plugins_with(policies=[Broken]))
    with pytest.raises(CacheError, match=r"BROKEN \(from cache=, provided by acme 1.0\) is broken: .* SystemExit: 4"):
        attempt(cache="BROKEN@level=2")


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (None, "TypeError: it is NoneType, not dict"),
        ([1], "TypeError: it is list, not dict"),
        ({"a": Unprintable()}, "RuntimeError: no text"),
        (fails(ValueError("no luck")), "ValueError: no luck"),
        (fails(SystemExit(3)), "SystemExit: 3"),
    ],
)
def test_details_that_cannot_be_told_cost_no_video(attempt: Attempt, told: Any, problem: str) -> None:
    tells = told if callable(told) else lambda self: told
    for odd in ({"cache": policy(run_details=tells)}, {"attention_backend": backend(run_details=tells)}):
        with pytest.warns(UserWarning, match=f"run_details of ODD failed .{problem}.; the receipt goes without"):
            receipt = attempt(**odd)
        assert (receipt.cache or receipt.attention["SELF"]).details == {}


def test_details_are_plain(attempt: Attempt) -> None:
    details = {"share": float("nan"), "most": float("inf"), 3: (1, 2.5), "of": torch.zeros(1), "none": None}
    receipt = attempt(cache=policy(run_details=lambda self: details))
    plain = {"share": "nan", "most": "inf", "3": [1, 2.5], "of": "tensor([0.])", "none": None}
    assert receipt.cache.details == plain
    told = json.loads(receipt.to_json(), parse_constant=pytest.fail)
    assert told["cache"]["details"] == plain


def test_an_error_in_words_is_left_as_it_is(attempt: Attempt) -> None:
    with pytest.raises(FastVideoError) as told:
        attempt(cache=policy(start_run=fails(CacheError("not today"))))
    assert str(told.value) == "not today"
    assert not hasattr(told.value, "__notes__")
