"""Pipelines that no family names, and pipelines that do not name the branches of guidance."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvideo_core import VideoGenerator, attach
from fastvideo_core.errors import CacheError
from tests.support.backends import Recorder
from tests.support.conditioned import CONDITIONED
from tests.support.models import SIZE, build_wan_pipeline, run_to_latents
from tests.support.policies import Scripted

CUT = {"HunyuanSkyreelsImageToVideo", "HunyuanVideoImageToVideo"}
"""Padded text is cut away before attention rather than masked in it: the same up to rounding."""

BRANCHES = {name: ["cond_uncond"] for name in CONDITIONED} | {
    name: ["", "call 2"] for name in (*CUT, "WanVideoToVideo")
}


def assert_same(frames: Any, expected: Any, kind: str) -> None:
    if kind in CUT:
        np.testing.assert_allclose(frames, expected, atol=1e-5)
    else:
        assert np.array_equal(frames, expected)


@pytest.mark.parametrize("kind", CONDITIONED)
def test_it_runs_as_it_does_alone(kind: str) -> None:
    build, options = CONDITIONED[kind]
    pipe = build()
    bare = run_to_latents(pipe, **options)
    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        assert_same(run_to_latents(pipe, **options), bare, kind)
    assert fv.receipt.token_grid == (3, 2, 3)
    assert list(fv.receipt.steps_computed) == BRANCHES[kind]
    with attach(pipe, attention_backend="TORCH_SDPA", cache=Scripted("C")):
        assert_same(run_to_latents(pipe, **options), bare, kind)
    assert np.array_equal(run_to_latents(pipe, **options), bare)


@pytest.mark.parametrize("kind", CONDITIONED)
def test_its_branches_are_cached_apart(kind: str) -> None:
    """A residual that is reused is the one of the same branch: kept by hand around a bare transformer, it is equal."""
    build, options = CONDITIONED[kind]
    options = {**options, "num_inference_steps": 5}  # video-to-video leaves one out
    pipe = build()
    with attach(pipe, attention_backend="TORCH_SDPA", cache=Scripted("CCR")) as fv:
        frames = run_to_latents(pipe, **options)
    assert fv.receipt.cache is not None
    steps = fv.receipt.num_inference_steps
    assert fv.receipt.cache.schedule == dict.fromkeys(BRANCHES[kind], "CC" + "R" * (steps - 2))
    passes = len(BRANCHES[kind])
    assert_same(frames, kept_by_hand(pipe, options, 2 * passes, passes), kind)


def kept_by_hand(pipe: Any, options: dict[str, Any], computed: int, passes: int) -> Any:
    """Latents where the blocks' residual of the same pass in step 1 is added again in all later steps."""
    transformer = pipe.transformer
    lists = [
        name for name in ("blocks", "transformer_blocks", "single_transformer_blocks") if hasattr(transformer, name)
    ]
    first, last = getattr(transformer, lists[0])[0], getattr(transformer, lists[-1])[-1]
    entered: list[Any] = []
    residuals: list[Any] = []

    def enter(module: Any, args: Any, kwargs: Any) -> None:
        entered.append((args[0] if args else kwargs["hidden_states"]).clone())

    def leave(module: Any, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        number = len(entered) - 1
        residuals.append(hidden - entered[-1])
        if number < computed:
            return output
        replaced = entered[-1] + residuals[computed - passes + number % passes]
        return (replaced, *output[1:]) if isinstance(output, tuple) else replaced

    hooks = (first.register_forward_pre_hook(enter, with_kwargs=True), last.register_forward_hook(leave))
    latents = run_to_latents(pipe, **options)
    for hook in hooks:
        hook.remove()
    return latents


@pytest.fixture
def unnamed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A WanPipeline whose transformer is told no branch."""
    pipe = build_wan_pipeline()
    monkeypatch.setattr(type(pipe.transformer), "cache_context", lambda self, name, **kwargs: nullcontext())
    return pipe


def test_a_backend_is_told_the_step_of_an_unnamed_branch(unnamed: Any) -> None:
    backend = Recorder()
    with attach(unnamed, attention_backend=backend) as fv:
        del vars(unnamed.transformer)["cache_context"]
        run_to_latents(unnamed)
    places = list(dict.fromkeys((branch, step) for _, branch, step, *_ in backend.seen))
    assert places == [(branch, step) for step in range(3) for branch in ("", "call 2")]
    assert fv.receipt.steps_computed == {"": 3, "call 2": 3}


@pytest.mark.parametrize(("change", "calls"), [("by hand", 3), ("no guidance", 1)])
def test_steps_that_make_other_calls_are_refused(unnamed: Any, change: str, calls: int) -> None:
    pipe = unnamed
    given: list[dict[str, Any]] = []

    def changed(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 1 and change == "no guidance":
            pipe._guidance_scale = 1.0
        if step == 2 and change == "by hand":
            pipe.transformer(**given[-1])
        return {}

    pipe.transformer.register_forward_pre_hook(lambda module, args, kwargs: given.append(kwargs), with_kwargs=True)
    for cache in (None, Scripted("CR")):
        with attach(pipe, cache=cache) as fv:
            del vars(pipe.transformer)["cache_context"]
            expected = pytest.raises(CacheError, match=f"step 2 makes {calls} calls and the first made 2, so SCRIPTED")
            with expected if cache else nullcontext():
                run_to_latents(pipe, callback_on_step_end=changed, num_inference_steps=4)
        if cache is None:
            counted = {"": 4, "call 2": 2} if change == "no guidance" else {"": 4, "call 2": 4, "call 3": 1}
            assert fv.receipt.steps_computed == counted


def test_a_pass_within_a_pass_leaves_nothing_behind(unnamed: Any) -> None:
    """A transformer whose forward calls it again, as some samplers do: both passes end."""
    pipe = unnamed
    bare = run_to_latents(pipe)
    forward, depth = pipe.transformer.forward, [0]

    def again(*args: Any, **kwargs: Any) -> Any:
        depth[0] += 1
        if depth[0] == 1:
            pipe.transformer(*args, **kwargs)
        depth[0] -= 1
        return forward(*args, **kwargs)

    with attach(pipe, attention_backend="TORCH_SDPA"):
        vars(pipe.transformer)["forward"] = again
        assert np.array_equal(run_to_latents(pipe), bare)
        del vars(pipe.transformer)["forward"]
        blocks = list(pipe.transformer.blocks)
        assert np.array_equal(run_to_latents(pipe), bare)
    assert blocks == list(pipe.transformer.blocks)


def test_a_scheduler_with_several_evaluations_a_step_is_refused(unnamed: Any) -> None:
    from diffusers import FlowMatchHeunDiscreteScheduler

    unnamed.scheduler = FlowMatchHeunDiscreteScheduler()
    with attach(unnamed, cache=Scripted("CR")):
        del vars(unnamed.transformer)["cache_context"]
        with pytest.raises(CacheError, match="its scheduler evaluates the model 2 times a step"):
            run_to_latents(unnamed)


@pytest.mark.parametrize("kind", ["LTXImageToVideo", "CogVideoXImageToVideo"])
def test_a_generator_asks_for_the_image(kind: str, tmp_path: Path) -> None:
    from PIL import Image

    build, options = CONDITIONED[kind]
    build().save_pretrained(tmp_path / "model")
    size = {**SIZE, **{name: value for name, value in options.items() if name in SIZE}}
    Image.new("RGB", (size["width"], size["height"]), "red").save(tmp_path / "red.png")
    with VideoGenerator.from_pretrained(tmp_path / "model") as generator:
        result = generator.generate_video(
            "cat", image_path=tmp_path / "red.png", negative_prompt="dog", save_video=False, **size
        )
    assert result.frames.shape == (size["num_frames"], size["height"], size["width"], 3)
