"""The gate of caching policies on every family: what it leaves alone, what a skipped step is, whose state is whose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import Action, Attachment, Branch, Signal, attach, relative_change
from fastvideo_core.errors import AttachError, CacheError, PolicyMismatchError
from tests.support.families import FAMILIES
from tests.support.models import SIZE, build_wan_pipeline
from tests.support.models import run_to_latents as run
from tests.support.policies import PIPELINES, Scripted

STEPS = SIZE["num_inference_steps"]


EXACT = {True: 0.0, False: 1e-5}
"""How far a step that is reused, or one that is computed, may be from input plus residual."""


def schedules(fv: Attachment) -> dict[str, str]:
    assert fv.receipt.cache is not None
    return fv.receipt.cache.schedule


@cache
def pipeline(kind: str) -> tuple[Any, dict[str, Any]]:
    """A pipeline of the kind and what `run` needs, the same for all tests: each leaves it as it was."""
    build, options = PIPELINES[kind]
    return build(), options


@cache
def latents_alone(kind: str) -> Any:
    """What it makes with nothing attached."""
    pipe, options = pipeline(kind)
    return run(pipe, **options)


def signals_of(kind: str) -> list[Signal]:
    return sorted(FAMILIES["Wan" if kind.startswith("Wan") else kind].all_signals)


EVERY = [(kind, signal) for kind in PIPELINES for signal in signals_of(kind)]


@pytest.mark.parametrize(("kind", "signal"), EVERY)
def test_a_policy_that_never_skips_changes_no_bit(kind: str, signal: Signal) -> None:
    (pipe, options), bare = pipeline(kind), latents_alone(kind)
    policy = Scripted("C", signal)
    with attach(pipe) as fv:
        plain = run(pipe, **options)
        fv.use_cache(policy)
        assert np.array_equal(run(pipe, **options), plain)
    assert fv.receipt.steps_skipped == dict.fromkeys(fv.receipt.steps_computed, 0)
    assert all(set(letters) == {"C"} for letters in schedules(fv).values())
    assert all((step.signal is None) == (signal is Signal.NONE) for step in policy.steps)
    assert np.array_equal(run(pipe, **options), bare)


@pytest.mark.parametrize(("kind", "signal"), EVERY)
def test_a_step_that_reuses_is_the_input_and_the_residual(kind: str, signal: Signal) -> None:
    pipe, options = pipeline(kind)
    policy = Scripted("CR", signal)
    with watched_end_of_stack(pipe) as leaving, attach(pipe, cache=policy) as fv:
        run(pipe, **options)
    skipped, computed = fv.receipt.steps_skipped, fv.receipt.steps_computed
    experts = 2 if kind == "Wan 2.2" else 1
    assert set(computed.values()) == {experts}
    assert set(skipped.values()) == {options.get("num_inference_steps", STEPS) - experts}
    assert len(leaving) == len(policy.steps)
    residuals = dict(zip([id(step) for step in policy.steps if step.index == 0], policy.residuals, strict=True))
    newest: dict[int, Any] = {}
    branches = len(computed)
    for number, (step, left) in enumerate(zip(policy.steps, leaving, strict=True)):
        branch = number % branches
        newest[branch] = residuals.get(id(step), newest.get(branch))
        base = step.signal if signal is Signal.FIRST_BLOCK_OUTPUT else step.hidden
        expected = base + newest[branch]
        torch.testing.assert_close(left, expected, rtol=EXACT[step.index > 0], atol=EXACT[step.index > 0])


@contextmanager
def watched_end_of_stack(pipe: Any) -> Iterator[list[torch.Tensor]]:
    """What enters the module behind the blocks, in each forward pass."""
    seen: list[torch.Tensor] = []
    with ExitStack() as undo:
        for transformer in (pipe.transformer, getattr(pipe, "transformer_2", None)):
            if transformer is not None:
                after = transformer.norm_final if hasattr(transformer, "norm_final") else transformer.norm_out
                undo.callback(after.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone())).remove)
        yield seen


@pytest.mark.parametrize("kind", PIPELINES)
def test_a_plan_is_followed_without_asking(kind: str) -> None:
    pipe, options = pipeline(kind)
    asked, planned = Scripted("CRC"), Scripted("CRC", ahead=True)
    with attach(pipe, cache=asked) as fv:
        frames = run(pipe, **options)
        schedule = schedules(fv)
        fv.use_cache(planned)
        assert np.array_equal(run(pipe, **options), frames)
        assert schedules(fv) == schedule
    assert not planned.steps
    assert asked.branches == planned.branches


def test_the_steps_of_a_stream_are_the_scheduler_s() -> None:
    pipe = build_wan_pipeline(experts=2)
    policy = Scripted("C", Signal.TIME_EMBEDDING)
    with attach(pipe, cache=policy) as fv:
        run(pipe, num_inference_steps=6)
    of_expert = {branch.expert: branch for branch in policy.branches}
    boundary = 0.8 * 1000
    assert [branch.name for branch in policy.branches] == ["cond", "uncond"] * 2
    assert sum(branch.num_steps for branch in of_expert.values()) == 6
    assert min(of_expert[0].timesteps) >= boundary > max(of_expert[1].timesteps)
    for branch in policy.branches:
        assert branch.changes is not None
        assert len(branch.changes) == branch.num_steps
        assert branch.changes[0] == 0
        assert all(change > 0 for change in branch.changes[1:])
    assert set(schedules(fv)) == {f"{branch} of expert {expert}" for branch in ("cond", "uncond") for expert in (1, 2)}


@pytest.mark.parametrize(
    "kind", ["Wan 2.1", "Wan 2.2", "Wan 2.2 per token", "Wan 2.2 image per token", "CogVideoX", "LTX-Video"]
)
@pytest.mark.parametrize("signal", [Signal.TIME_EMBEDDING, Signal.TIME_PROJECTION])
def test_changes_known_ahead_are_those_that_the_steps_show(kind: str, signal: Signal) -> None:
    if signal not in signals_of(kind):
        pytest.skip(f"{kind} has no {signal}")
    pipe, options = pipeline(kind)
    policy = Scripted("C", signal)
    with attach(pipe, cache=policy):
        run(pipe, **{**options, "num_inference_steps": 6})
    per_stream: dict[int, list[Any]] = {}
    branches = len({branch.name for branch in policy.branches})
    for number, step in enumerate(policy.steps):
        per_stream.setdefault(number % branches, []).append(step)
    for branch, steps in per_stream.items():
        known = [change for branch in policy.branches[branch::branches] for change in (branch.changes or ())]
        for before, now, change in zip(steps, steps[1:], known[1:], strict=False):
            if now.index == 0:
                continue
            assert change == pytest.approx(relative_change(now.signal, before.signal), rel=1e-4)


def test_a_forecast_is_given_the_latest_residuals(wan_pipeline: Any) -> None:
    policy = Scripted("CCFCCFF")
    with attach(wan_pipeline, cache=policy) as fv:
        run(wan_pipeline, guidance_scale=1.0, num_inference_steps=7)
    assert policy.histories == [(0, 1), (1, 3, 4), (1, 3, 4)]
    assert schedules(fv) == {"cond": "CCFCCFF"}
    assert fv.receipt.steps_skipped == {"cond": 3}


def test_reuse_is_of_the_newest_residual(wan_pipeline: Any) -> None:
    policy = Scripted("CCCRCR")
    with watched_end_of_stack(wan_pipeline) as left, attach(wan_pipeline, cache=policy):
        run(wan_pipeline, guidance_scale=1.0, num_inference_steps=6)
    assert len(policy.residuals) == 4
    for skipped, newest in ((3, 2), (5, 3)):
        expected = policy.steps[skipped].hidden + policy.residuals[newest]
        torch.testing.assert_close(left[skipped], expected, rtol=0, atol=0)


def test_state_ends_with_the_run_however_it_ends(wan_pipeline: Any) -> None:
    policy = Scripted("CR")
    with attach(wan_pipeline, cache=policy) as fv:
        first = run(wan_pipeline)
        for error in (RuntimeError, KeyboardInterrupt):
            with pytest.raises(error):
                run(wan_pipeline, prompt="dog", callback_on_step_end=raiser(error))
            assert np.array_equal(run(wan_pipeline), first)
            assert fv.receipt.steps_computed == {"cond": 1, "uncond": 1}


def raiser(error: type[BaseException]) -> Any:
    def callback(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            raise error("stopped")
        return {}

    return callback


def test_nothing_is_left_in_the_model(wan_pipeline: Any) -> None:
    names = [name for name, _ in wan_pipeline.transformer.named_modules()]
    blocks = wan_pipeline.transformer.blocks
    keys = list(wan_pipeline.transformer.state_dict())
    bare = run(wan_pipeline)
    with attach(wan_pipeline, cache=Scripted("CR")):
        assert list(wan_pipeline.transformer.state_dict()) == keys
        assert [name for name, _ in wan_pipeline.transformer.named_modules()] == names
        run(wan_pipeline)
    assert wan_pipeline.transformer.blocks is blocks
    assert np.array_equal(run(wan_pipeline), bare)


def test_a_policy_whose_signal_the_family_lacks(wan_pipeline: Any) -> None:
    pipe, _ = pipeline("Mochi")
    with pytest.raises(PolicyMismatchError, match="SCRIPTED looks at TIME_PROJECTION, which Mochi models do not have"):
        attach(pipe, cache=Scripted("C", Signal.TIME_PROJECTION))
    with attach(pipe) as fv:
        with pytest.raises(PolicyMismatchError):
            fv.use_cache(Scripted("C", Signal.TIME_PROJECTION))
        with pytest.raises(AttachError):
            _ = fv.receipt


class PlansForAnother(Scripted):
    """Plans so many steps, whatever the branch has."""

    def __init__(self, steps: int) -> None:
        super().__init__("C")
        self.planned = steps

    def plan(self, branch: Branch) -> list[Action]:
        return [Action.COMPUTE] * self.planned


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Scripted("R"), "SCRIPTED decided to REUSE in step 0 of branch 'cond', where nothing has been computed yet"),
        (Scripted("F"), "SCRIPTED decided to FORECAST in step 0"),
        (PlansForAnother(2), "SCRIPTED planned 2 steps for branch 'cond', it has 3"),
        (PlansForAnother(4), "SCRIPTED planned 4 steps for branch 'cond', it has 3"),
    ],
)
def test_a_decision_that_cannot_be_followed(wan_pipeline: Any, policy: Scripted, message: str) -> None:
    bare = run(wan_pipeline)
    with attach(wan_pipeline, cache=policy), pytest.raises(CacheError, match=message):
        run(wan_pipeline)
    assert np.array_equal(run(wan_pipeline), bare)


@pytest.mark.parametrize("script", ["C", "CFR"])
@pytest.mark.parametrize("signal", [Signal.NONE, Signal.FIRST_BLOCK_OUTPUT])
@pytest.mark.parametrize("kind", ["Wan 2.1", "HunyuanVideo", "Mochi"])
def test_in_a_backend_s_token_order(kind: str, signal: Signal, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, options = pipeline(kind)
    monkeypatch.setenv("FASTVIDEO_STA_TILE", "2,8,8")
    monkeypatch.setenv("FASTVIDEO_STA_WINDOW", "3,1,1")
    options = {**options, "height": 64, "width": 48, "num_frames": 37 if kind == "Mochi" else 25}
    frames = []
    for order in ("forward", "layer"):
        monkeypatch.setenv("FASTVIDEO_STA_ORDER", order)
        with attach(pipe, attention_backend="SLIDING_TILE_ATTN", cache=Scripted(script, signal)):
            frames.append(run(pipe, **options))
    np.testing.assert_allclose(frames[0], frames[1], atol=1e-5)


def test_tokens_that_change_within_a_run_are_refused(wan_pipeline: Any) -> None:
    def widen(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        return {"latents": torch.cat([values["latents"]] * 2, dim=-1)} if step == 0 else {}

    with attach(wan_pipeline, cache=Scripted("CR")):
        with pytest.raises(CacheError, match=r"changed its tokens from \(1, 18, 32\) to \(1, 36, 32\) within a run"):
            run(wan_pipeline, callback_on_step_end=widen)
        run(wan_pipeline)
