"""TEACACHE decides as the published algorithm does, plans ahead where it can, and says what it lacks."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import fv_teacache.policy
import numpy as np
import pytest
import torch
from fv_teacache.checkpoints import PUBLISHED, find
from fv_teacache.coefficients import Calibration
from fv_teacache.policy import TeaCache

from fastvideo_core import Action, Branch, CachedModel, Signal, Step, attach
from fastvideo_core.engine.caching.choice import prepare_policy
from fastvideo_core.errors import InputError, PolicyMismatchError
from fastvideo_core.testing import CachePolicySuite
from tests.support.families import FAMILIES
from tests.support.models import run_to_latents as run
from tests.support.policies import PIPELINES

RISING = (0.0, 0.0, 0.0, 1.0, 0.0)
"""The change itself is what is predicted."""


class TestTeaCache(CachePolicySuite):
    policy = TeaCache(threshold=0.3, coefficients=RISING)
    never = TeaCache(threshold=0, coefficients=RISING)


class TestRetSteps(CachePolicySuite):
    policy = TeaCache(threshold=0.3, coefficients=RISING, use_ret_steps=True)
    never = TeaCache(threshold=0, coefficients=RISING, use_ret_steps=True)


class ReadWhileItRuns(TeaCache):
    """As for HunyuanVideo, LTX and Mochi."""

    def for_model(self, model: CachedModel) -> Self:
        prepared = super().for_model(model)
        prepared.signal = Signal.MODULATED_INPUT
        return prepared


class TestReadWhileItRuns(CachePolicySuite):
    policy = ReadWhileItRuns(threshold=0.3, coefficients=RISING)
    never = ReadWhileItRuns(threshold=0, coefficients=RISING)


class Transcription:
    """The published algorithm for Wan 2.1, with its counters, both branches in turn."""

    def __init__(self, num_steps: int, threshold: float, coefficients: Any, use_ret_steps: bool) -> None:
        self.cnt, self.num_steps, self.teacache_thresh = 0, num_steps * 2, threshold
        self.accumulated_rel_l1_distance_even = self.accumulated_rel_l1_distance_odd = 0.0
        self.previous_e0_even = self.previous_e0_odd = None
        self.coefficients = coefficients
        self.ret_steps = 5 * 2 if use_ret_steps else 1 * 2
        self.cutoff_steps = num_steps * 2 if use_ret_steps else num_steps * 2 - 2

    def should_calc(self, modulated_inp: torch.Tensor) -> bool:
        branch = "even" if self.cnt % 2 == 0 else "odd"
        accumulated, previous = f"accumulated_rel_l1_distance_{branch}", f"previous_e0_{branch}"
        if self.cnt < self.ret_steps or self.cnt >= self.cutoff_steps:
            should_calc = True
            setattr(self, accumulated, 0)
        else:
            rescale = np.poly1d(self.coefficients)
            before = getattr(self, previous)
            distance = ((modulated_inp - before).abs().mean() / before.abs().mean()).cpu().item()
            setattr(self, accumulated, getattr(self, accumulated) + rescale(distance))
            if getattr(self, accumulated) < self.teacache_thresh:
                should_calc = False
            else:
                should_calc = True
                setattr(self, accumulated, 0)
        setattr(self, previous, modulated_inp.clone())
        self.cnt += 1
        return should_calc


def embeddings(num_steps: int, domain: tuple[float, float]) -> list[torch.Tensor]:
    """Signals whose changes wander through a domain."""
    generator = torch.Generator().manual_seed(num_steps)
    low, high = domain
    signals = [torch.randn(1, 64, generator=generator)]
    for step in range(1, num_steps):
        change = low + (high - low) * (0.5 + 0.5 * np.sin(step / 3))
        direction = torch.randn(1, 64, generator=generator)
        signals.append(signals[-1] + direction * change * signals[-1].abs().mean() / direction.abs().mean())
    return signals


MODEL = CachedModel("Wan2.1-T2V-1.3B-Diffusers", "Wan", "WanPipeline", None, FAMILIES["Wan"].all_signals, frozenset())


@pytest.mark.parametrize("num_steps", [20, 30, 50])
@pytest.mark.parametrize("threshold", [0.05, 0.08, 0.15, 0.3])
@pytest.mark.parametrize(
    ("ret_steps", "domain"), [(False, (0.02, 0.17)), (True, (0.006, 0.09))], ids=["plain", "use_ret_steps"]
)
def test_decisions_are_those_of_the_published_algorithm(
    ret_steps: bool, domain: tuple[float, float], threshold: float, num_steps: int
) -> None:
    published = find(MODEL.name, ret_steps)
    assert published is not None
    signals = embeddings(num_steps, domain)
    literal = Transcription(num_steps, threshold, published.coefficients, ret_steps)
    expected = [literal.should_calc(signal) for signal in signals for branch in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        policy = prepare_policy(TeaCache(threshold, ret_steps, max_skips=1000), MODEL)
    branches = [Branch(MODEL, branch, 0, num_steps) for branch in ("cond", "uncond")]
    states = [policy.start(branch) for branch in branches]
    hidden = torch.zeros(1)
    decided = [
        policy.decide(Step(index, num_steps, hidden, signal), state)
        for index, signal in enumerate(signals)
        for state in states
    ]
    assert [action is Action.COMPUTE for action in decided] == expected
    assert False in expected
    changes = (
        0.0,
        *(((b - a).abs().mean() / a.abs().mean()).item() for a, b in pairwise(signals)),
    )
    assert policy.plan(replace(branches[0], changes=changes)) == decided[::2]


def test_a_negative_prediction_counts_as_none_and_skips_in_a_row_are_bounded() -> None:
    negative = prepare_policy(TeaCache(0.1, coefficients=(-1.0,)), MODEL)
    assert negative.predicted(0.5) == 0
    plan = negative.plan(Branch(MODEL, "", 0, 26, changes=(0.0,) * 26))
    assert letters(plan) == "C" + "R" * 10 + "C" + "R" * 10 + "C" + "R" * 2 + "C"
    exact = prepare_policy(TeaCache(0.5, coefficients=(1.0, 0.0)), MODEL)
    assert letters(exact.plan(Branch(MODEL, "", 0, 6, changes=(0.0, *[0.25] * 5)))) == "CRCRCC", "as large as computes"
    bounded = prepare_policy(TeaCache(0.1, coefficients=(-1.0,), max_skips=2), MODEL)
    assert letters(bounded.plan(Branch(MODEL, "", 0, 8, changes=(0.0,) * 8))) == "CRRCRRCC"
    assert letters(bounded.plan(Branch(MODEL, "", 0, 4, changes=(0.0, float("nan"), 0.0, 0.0)))) == "CCRC"


def letters(plan: Any) -> str:
    return "".join(action.value[0] for action in plan)


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda p: f"{p.names[0]}{'-ret' if p.ret_steps else ''}")
def test_every_published_checkpoint_is_known(published: Any) -> None:
    family = {"C": "CogVideoX", "H": "HunyuanVideo", "L": "LTX-Video", "m": "Mochi", "W": "Wan"}[published.names[0][0]]
    description = FAMILIES[family]
    for name in published.names:
        model = CachedModel(f"somebody/{name}", family, "", None, description.all_signals, frozenset())
        prepared = prepare_policy(TeaCache(use_ret_steps=published.ret_steps), model)
        assert prepared.coefficients == published.coefficients
        assert prepared.threshold == published.thresholds[0]
        with pytest.warns(UserWarning, match="is outside what was published"):
            prepare_policy(TeaCache(published.thresholds[-1] + 1, published.ret_steps), model)


def test_a_higher_threshold_skips_more() -> None:
    changes = (0.0, *np.linspace(0.3, 0.02, 49))
    computed = [
        letters(
            prepare_policy(TeaCache(threshold, coefficients=RISING), MODEL).plan(
                Branch(MODEL, "", 0, 50, changes=changes)
            )
        )
        for threshold in (0, 0.1, 0.2, 0.4, 0.8)
    ]
    counts = [plan.count("C") for plan in computed]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == len(counts)


def test_a_model_without_coefficients_is_an_error_that_says_what_to_do(wan_pipeline: Any) -> None:
    with pytest.raises(PolicyMismatchError, match=r"no coefficients for .*`fv teacache calibrate --model"):
        attach(wan_pipeline, cache="TEACACHE")
    with pytest.raises(InputError, match=r"coefficients 'Wan2.1-T2V-13B' are no file, and none were published by"):
        attach(wan_pipeline, cache=TeaCache(coefficients="Wan2.1-T2V-13B"))
    with attach(wan_pipeline, cache="TEACACHE@0.06:coefficients=Wan2.1-T2V-1.3B:use_ret_steps=true") as fv:
        run(wan_pipeline)
    cache = fv.receipt.cache
    assert cache is not None
    assert (cache.settings["threshold"], cache.settings["use_ret_steps"]) == (0.06, True)
    assert cache.details["signal"] == "TIME_PROJECTION"
    text = "cache='TEACACHE@0.06:coefficients=Wan2.1-T2V-1.3B:use_ret_steps=true'"
    assert cache.origins == {
        "threshold": text,
        "coefficients": f"coefficients in {text}",
        "use_ret_steps": f"use_ret_steps in {text}",
    }
    assert cache.distribution.startswith("fv-teacache ")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("TEACACHE@-1", r"is '-1': input should be greater than or equal to 0; it sets threshold:"),
        ("TEACACHE@much", r"is 'much': input should be a valid number, .*; it sets threshold:"),
        (
            "TEACACHE@0.1:max_skips=0",
            r"is '0': input should be greater than or equal to 1; it sets max_skips: how many steps in a row",
        ),
        ("TEACACHE@0.1:use_ret_steps=2", r"is '2': input should be a valid boolean"),
        (
            "TEACACHE@0.1:coefficients=[1, null]",
            r"\[1, null\]': they must be finite numbers",
        ),
        ("TEACACHE@0.1:coefficients=[true, 2]", r"\[true, 2\]': they must be finite numbers"),
        ("TEACACHE@coefficients=" + "x" * 5000, "are no file, and none were published by that name"),
        ("TEACACHE@0.1:coefficients=[]", r"is '\[\]': they must be finite numbers"),
        ("TEACACHE:coefficients=[1]", r"unknown caching policy 'TEACACHE:COEFFICIENTS=\[1\]'"),
        ("TEACACHE@coefficients=[1]", r"no default threshold for .*: give one, such as TEACACHE@0.1"),
        ("TEACACHE@0.1:treshold=2", r"has no setting 'treshold'; did you mean threshold\?"),
        ("TEACACHE@", r"is none of NAME, NAME@VALUE"),
    ],
)
def test_settings_that_do_not_fit(wan_pipeline: Any, spec: str, message: str) -> None:
    from fastvideo_core.errors import FastVideoError

    with pytest.raises(FastVideoError, match=message):
        attach(wan_pipeline, cache=spec)


def test_ret_steps_are_for_wan() -> None:
    with pytest.raises(InputError, match="use_ret_steps is a variant for Wan; this is a Mochi model"):
        attach(PIPELINES["Mochi"][0](), cache=TeaCache(0.1, use_ret_steps=True, coefficients=RISING))


@pytest.mark.parametrize("kind", ["Wan 2.1", "Wan 2.2", "CogVideoX"])
def test_a_time_embedding_is_never_read_in_the_loop(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastvideo_core.engine.caching import run_caching

    build, options = PIPELINES[kind]
    pipe = build()
    reads = count_calls(monkeypatch, fv_teacache.policy, "relative_change")
    ahead = count_calls(monkeypatch, run_caching, "time_changes")
    with attach(pipe, cache=TeaCache(0.5, coefficients=RISING)) as fv:
        run(pipe, **options)
    assert not reads
    assert len(ahead) == len(fv.receipt.cache.schedule)  # type: ignore[union-attr]


def count_calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """Grows by one whenever the function is called."""
    calls: list[Any] = []
    function = getattr(module, name)

    def counted(*args: Any) -> Any:
        calls.append(args)
        return function(*args)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_a_file_of_coefficients(tmp_path: Path, wan_pipeline: Any) -> None:
    file = tmp_path / "teacache.json"
    file.write_text(Calibration(RISING, Signal.MODULATED_INPUT, threshold=0.25).to_json())
    with attach(wan_pipeline, cache=TeaCache(coefficients=file)) as fv:
        run(wan_pipeline)
        assert fv.receipt.cache is not None
        assert (fv.receipt.cache.details["signal"], fv.receipt.cache.settings["threshold"]) == (
            "MODULATED_INPUT",
            0.25,
        )
        assert fv.receipt.to_json()
    for content in ("", "{}", '{"coefficients": ["a"], "signal": "NONE"}', '{"coefficients": [1], "signal": "X"}'):
        file.write_text(content)
        with pytest.raises(InputError, match=r"teacache.json"):
            attach(wan_pipeline, cache=TeaCache(coefficients=file))
