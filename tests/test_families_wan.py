"""The kin of Wan: each transformer passes the suite for model families, each pipeline runs as it does alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import MaskKind, Signal, VideoGenerator, attach, relative_change
from fastvideo_core.errors import BackendMismatchError, CacheError, InputError, UnsupportedModelError
from fastvideo_core.testing import ModelFamilySuite
from fastvideo_core.testing.family_runs import Watching
from fastvideo_core.testing.fixed import counting
from tests.support.backends import Recorder
from tests.support.clips import write_clip
from tests.support.families import FAMILIES
from tests.support.faulty_wans import FAULTY_WANS
from tests.support.inner_run import failures
from tests.support.models import SIZE, run_to_latents
from tests.support.models_wan import ASYNCHRONOUS, WANS, build_skyreels, images
from tests.support.policies import Scripted


class OfWans(ModelFamilySuite):
    """The suite on one of these pipelines."""

    kind = ""

    def build(self) -> Any:
        return WANS[self.kind][0]()

    def generate(self, pipe: Any) -> torch.Tensor:
        return torch.from_numpy(run_to_latents(pipe, **WANS[self.kind][1]))


def suite(kind: str, family: Any) -> type:
    """The suite on a pipeline and a family, which is one of the core if it is named."""
    size = {**SIZE, **{name: value for name, value in WANS[kind][1].items() if value is not None}}
    own = {
        "kind": kind,
        "family": FAMILIES[family] if isinstance(family, str) else family,
        "size": (size["num_frames"], size["height"], size["width"]),
    }
    return type("Test", (OfWans,), own)


TestVACE = suite("VACE", "Wan VACE")
TestAnimate = suite("Animate", "Wan Animate")
TestSkyReelsImage = suite("SkyReels image", "SkyReels-V2")
TestSkyReelsForcing = suite("SkyReels forcing image", "SkyReels-V2")
TestTI2VImage = suite("TI2V image", "Wan")
TestChronoEdit = suite("ChronoEdit", "ChronoEdit")


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTY_WANS)
def test_a_seeded_fault_fails_the_suite(fault: str, tmp_path: Path) -> None:
    source = f"""
from tests.support.faulty_wans import FAULTY_WANS
from tests.test_families_wan import suite

kind, family, _ = FAULTY_WANS[{fault!r}]
TestFault = suite(kind, family)
"""
    expected = FAULTY_WANS[fault][2]
    assert set(failures(tmp_path, source, "-k", expected)) == {expected}


LOOPS = {
    "VACE 2.2": {"cond of expert 1": 3, "uncond of expert 1": 3, "cond of expert 2": 2, "uncond of expert 2": 2},
    "SkyReels": {"cond": 3, "uncond": 3},
    "SkyReels forcing": {"cond": 3, "uncond": 3},
    "SkyReels forcing, frame rate": {"cond": 3, "uncond": 3},
    "SkyReels forcing asynchronous": {"cond": 5, "uncond": 5},
    "SkyReels forcing video": {"cond": 3, "uncond": 3},
    "TI2V": {"cond": 3, "uncond": 3},
    "Lucy": {"cond": 3, "uncond": 3},
    "video to video": {"": 2, "call 2": 2},
}
"""What the suite is not run on: passes of each branch. Three frames that lag a step each take two steps more, and of
three steps a video to start from leaves 0.7."""


@pytest.mark.parametrize("kind", LOOPS)
def test_it_runs_as_it_does_alone(kind: str) -> None:
    build, options = WANS[kind]
    pipe = build()
    bare = run_to_latents(pipe, **options)
    for script in ("C", "CR"):
        with attach(pipe, attention_backend="TORCH_SDPA", cache=Scripted(script)) as fv:
            frames = run_to_latents(pipe, **options)
        assert np.array_equal(frames, bare) is (script == "C")
        assert fv.receipt.cache is not None
        expected = {branch: script[0] + script[-1] * (passes - 1) for branch, passes in LOOPS[kind].items()}
        assert fv.receipt.cache.schedule == expected
    assert np.array_equal(run_to_latents(pipe, **options), bare)


BLOCKS = 4
SPANS = [(0, 0), (1, 0), (2, 0), (0, 1), (0, 2), (1, 1)]
"""How many of the first and last of four blocks always run; something is added behind the first and the third."""


def kept_by_hand(pipe: Any, options: dict[str, Any], first: int, last: int) -> Any:
    """Latents where the middle blocks, with what is added between them, give in all steps the residual of the first."""
    transformer, stop = pipe.transformer, BLOCKS - last
    leaves = transformer.blocks[stop] if last else transformer.norm_out
    kept: dict[str, Any] = {"step": 0}

    def skips() -> bool:
        return bool(kept["step"] > 1)

    def begin(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        kept["step"] += 1
        if "control_hidden_states_scale" in kwargs and skips():
            scale = kwargs["control_hidden_states_scale"].clone()
            for number, block in enumerate(transformer.config.vace_layers):
                scale[number] *= not first <= block < stop
            return args, {**kwargs, "control_hidden_states_scale": scale}
        return None

    def enter(module: Any, args: Any) -> None:
        kept["entered"] = args[0].clone()

    def leave(module: Any, args: Any) -> None:
        if not skips():
            kept["residual"] = args[0] - kept["entered"]

    def middle(module: Any, args: Any, output: Any) -> Any:
        if not skips():
            return output
        return args[0] + kept["residual"] if module is transformer.blocks[first] else args[0]

    hooks = [
        transformer.register_forward_pre_hook(begin, with_kwargs=True),
        transformer.blocks[first].register_forward_pre_hook(enter),
        leaves.register_forward_pre_hook(leave),
        *(block.register_forward_hook(middle) for block in list(transformer.blocks)[first:stop]),
    ]
    for number, adapter in enumerate(getattr(transformer, "face_adapter", ())):
        if first <= number * transformer.config.inject_face_latents_blocks < stop:
            hooks.append(adapter.register_forward_hook(lambda module, args, output: output * (not skips())))
    latents = run_to_latents(pipe, **options)
    for hook in hooks:
        hook.remove()
    return latents


@cache
def bare_run(kind: str) -> tuple[Any, dict[str, Any], Any]:
    """A pipeline of that kind, what it is called with, and the latents that it makes alone."""
    build, options = WANS[kind]
    pipe, options = build(), {**options, "guidance_scale": 1.0}
    return pipe, options, run_to_latents(pipe, **options)


@pytest.mark.parametrize("kind", ["VACE", "Animate"])
@pytest.mark.parametrize(("first", "last"), SPANS)
def test_what_is_added_between_skipped_blocks_is_in_their_residual(kind: str, first: int, last: int) -> None:
    pipe, options, bare = bare_run(kind)
    expected = kept_by_hand(pipe, options, first, last)
    assert not np.allclose(expected, bare, atol=1e-3)
    for backend in ("TORCH_SDPA", Watching(ordered=True)):
        with attach(pipe, attention_backend=backend, cache=Scripted("C", first_blocks=first, last_blocks=last)) as fv:
            np.testing.assert_allclose(run_to_latents(pipe, **options), bare, atol=1e-5)
            fv.use_cache(Scripted("CR", first_blocks=first, last_blocks=last))
            np.testing.assert_allclose(run_to_latents(pipe, **options), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["VACE", "Animate"])
def test_a_whole_transformer_is_compiled_with_a_policy(kind: str) -> None:
    build, options = WANS[kind]
    options, graphs = {**options, "guidance_scale": 1.0}, list[Any]()
    pipe = build()
    with attach(pipe, cache=Scripted("CR", first_blocks=1)):
        expected = run_to_latents(pipe, **options)
    torch.compiler.reset()
    pipe.transformer.compile(backend=counting(graphs))
    with attach(pipe, cache=Scripted("CR", first_blocks=1)):
        np.testing.assert_allclose(run_to_latents(pipe, **options), expected, atol=1e-5)
    torch.compiler.reset()
    assert 1 < len(graphs) <= 12


@pytest.mark.parametrize(("last", "hints"), [(0, 0), (1, 0), (2, 2)])
def test_a_skipped_step_makes_the_hints_alone_that_are_added(last: int, hints: int) -> None:
    """The second hint, added behind the third of four blocks, is made of what the first hands on."""
    build, options = WANS["VACE"]
    pipe, ran = build(), list[int]()
    for number, block in enumerate(pipe.transformer.vace_blocks):
        block.register_forward_pre_hook(lambda module, args, number=number: ran.append(number))
    with attach(pipe, cache=Scripted("CR", last_blocks=last)) as fv:
        run_to_latents(pipe, **{**options, "guidance_scale": 1.0})
    skipped = SIZE["num_inference_steps"]
    assert ran == [0, 1] + list(range(hints)) * skipped
    layers = BLOCKS + 2 + (last + hints) * skipped
    assert {role: one.calls for role, one in fv.receipt.attention.items()} == {"SELF": layers, "CROSS": layers}


def test_blocks_that_make_hints_are_none_that_a_policy_skips() -> None:
    with pytest.raises(CacheError, match="nothing left to skip"):
        attach(WANS["VACE"][0](), cache=Scripted("CR", first_blocks=2, last_blocks=2))


def test_blocks_that_make_hints_are_layers_too() -> None:
    build, options = WANS["VACE"]
    backend = Recorder()
    with attach(build(), attention_backend=backend) as fv:
        run_to_latents(fv.pipe, **{**options, "guidance_scale": 1.0, "num_inference_steps": 1})
    assert [layer for role, _, _, _, layer, _ in backend.seen if role == "SELF"] == list(range(2 + BLOCKS))


@pytest.mark.parametrize("noise", [0, 20])
@pytest.mark.parametrize("signal", [Signal.TIME_EMBEDDING, Signal.TIME_PROJECTION])
def test_changes_of_frames_that_stand_are_known_ahead(signal: Signal, noise: int) -> None:
    """A frame to start from has the timestep 0; with noise on it another one, that stays as it is too."""
    build, options = WANS["SkyReels forcing image"]
    policy = Scripted("C", signal)
    with attach(build(), cache=policy) as fv:
        run_to_latents(fv.pipe, **{**options, "guidance_scale": 1.0, "addnoise_condition": noise})
    (branch,) = policy.branches
    assert branch.num_steps == 3
    signals = [step.signal for step in policy.steps if step.signal is not None]
    assert [len(one) for one in signals] == [3, 3, 3]
    if noise:
        assert branch.changes is None
    else:
        changes = [relative_change(now, before) for before, now in pairwise(signals)]
        assert branch.changes == pytest.approx([0.0, *changes], rel=1e-4)


def test_frames_that_come_in_one_after_the_other_have_no_common_schedule() -> None:
    build, options = WANS["SkyReels forcing asynchronous"]
    policy = Scripted("CRR", Signal.TIME_EMBEDDING)
    with attach(build(), cache=policy) as fv:
        run_to_latents(fv.pipe, **{**options, "num_inference_steps": 4})
    for branch in policy.branches:
        assert (branch.num_steps, branch.timesteps, branch.changes) == (6, (), None)
    assert fv.receipt.num_inference_steps == 6


def test_frames_in_causal_blocks_need_a_backend_that_takes_their_mask() -> None:
    pipe = build_skyreels("SkyReelsV2DiffusionForcingPipeline")
    options = {**ASYNCHRONOUS, "causal_block_size": 3, "num_frames": 21}
    bare = run_to_latents(pipe, **options)
    with attach(pipe, attention_backend="TORCH_SDPA"):
        assert np.array_equal(run_to_latents(pipe, **options), bare)
    ordered = Watching(ordered=True)
    for masks, message in (
        (frozenset[MaskKind](), r"an ARBITRARY mask of shape \(1, 1, 36, 36\), it takes KEY_LENGTH"),
        (
            frozenset({MaskKind.ARBITRARY}),
            r"a mask of shape \(1, 1, 36, 36\) over video tokens, which it has in another",
        ),
    ):
        ordered.capabilities = replace(ordered.capabilities, masks=masks)
        with attach(pipe, attention_backend=ordered), pytest.raises(BackendMismatchError, match=message):
            run_to_latents(pipe, **options)


@pytest.mark.parametrize(
    ("kind", "changes", "frames"),
    [
        ("SkyReels forcing", {"num_frames": 17, "base_num_frames": 9, "overlap_history": 5}, 3),
        ("Animate", {"pose_video": images(frames=17), "face_video": images((16, 16), 17)}, 4),
    ],
)
def test_a_video_made_in_parts_has_a_run_for_each(kind: str, changes: dict[str, Any], frames: int) -> None:
    build, options = WANS[kind]
    options = {**options, **changes, "guidance_scale": 1.0}
    pipe, policy = build(), Scripted("CRC")
    bare = run_to_latents(pipe, **options)
    with attach(pipe, attention_backend="TORCH_SDPA", cache=Scripted("C")) as fv:
        assert np.array_equal(run_to_latents(pipe, **options), bare)
        fv.use_cache(policy)
        run_to_latents(pipe, **options)
    assert [step.index for step in policy.steps] == [0, 1, 2] * (len(policy.steps) // 3)
    assert len(policy.steps) > 3
    assert fv.receipt.token_grid == (frames, 2, 3)
    assert fv.receipt.steps_computed == {"cond": 2}


def test_chronoedit_leaves_frames_out_on_its_way() -> None:
    build, options = WANS["ChronoEdit"]
    options = {**options, "num_frames": 13, "enable_temporal_reasoning": True, "num_temporal_reasoning_steps": 2}
    pipe = build()
    bare = run_to_latents(pipe, **options)
    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        assert np.array_equal(run_to_latents(pipe, **options), bare)
    assert fv.receipt.token_grid == (2, 2, 3)
    message = r"changed its tokens from \(1, 24, 32\) to \(1, 12, 32\) within a run, so SCRIPTED"
    with attach(pipe, cache=Scripted("C")), pytest.raises(CacheError, match=message):
        run_to_latents(pipe, **options)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("VACE", {}),
        ("Lucy", {"video_path": "grey.mp4"}),
        ("SkyReels forcing image", {"image_path": "red.png"}),
        ("TI2V image", {"image_path": "red.png", "height": 64, "width": 96}),
    ],
)
def test_a_generator_loads_it_from_a_folder(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    WANS[kind][0]().save_pretrained(tmp_path / "model")
    if "image_path" in changes:
        changes = {**changes, "image_path": tmp_path / "red.png"}
        images()[5].save(changes["image_path"])
    if "video_path" in changes:
        changes = {**changes, "video_path": write_clip(tmp_path / "grey.mp4")}
    given: dict[str, Any] = {**SIZE, "guidance_scale": 3.0, "negative_prompt": "dog", "save_video": False, **changes}
    with VideoGenerator.from_pretrained(tmp_path / "model") as generator:
        frames = generator.generate_video("cat", **given).frames
        assert frames.shape == (9, given["height"], given["width"], 3)
        step = 32 if kind == "TI2V image" else 16
        with pytest.raises(InputError, match=f"height 40 is not a multiple of {step}"):
            generator.generate_video("cat", **{**given, "height": 40})


def test_a_generator_refuses_what_needs_more_than_it_has(tmp_path: Path) -> None:
    WANS["Animate"][0]().save_pretrained(tmp_path)
    message = r"is a WanAnimatePipeline, which needs face_video and pose_video beside .*attach\(pipe\)"
    with pytest.raises(UnsupportedModelError, match=message):
        VideoGenerator.from_pretrained(tmp_path)
