"""Pipelines of LTX-Video and LTX-2: what stands beside the grid, two streams, passes that leave out attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import (
    Action,
    Branch,
    CachePolicy,
    Computed,
    MaskKind,
    Role,
    Signal,
    Step,
    TokenLayout,
    TokenOrder,
    VideoGenerator,
    attach,
)
from fastvideo_core.app.result import check_finite
from fastvideo_core.engine.attention.order import in_stream
from fastvideo_core.errors import AttachError, BackendMismatchError, BackendOutputError, UnsupportedModelError
from fastvideo_core.testing.family_runs import Watching
from tests.support.families import FAMILIES
from tests.support.models_ltx import (
    LTX_SIZE,
    build_image,
    build_ltx2_0_pipeline,
    build_ltx2_pipeline,
    build_ltx_condition_pipeline,
    build_ltx_long_pipeline,
    conditions,
    run_ltx,
    run_ltx2,
)
from tests.support.policies import Scripted

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

GRID = (3, 2, 3)
LONG = {"num_frames": 33, "temporal_tile_size": 24, "temporal_overlap": 8, "seed": 3}
"""Two windows of 17 frames, the second one with the last of the first behind its own."""


def run_ltx2_conditions(pipe: Any) -> torch.Tensor:
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    return run_ltx2(pipe, conditions=[LTX2VideoCondition(build_image(), index) for index in (0, 1)])


def run_ltx2_reference(pipe: Any, **options: Any) -> torch.Tensor:
    from diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora import LTX2ReferenceCondition

    return run_ltx2(pipe, reference_conditions=[LTX2ReferenceCondition([build_image()] * 17)], **options)


@dataclass(frozen=True)
class Kind:
    """A pipeline, a generation, and how the tokens of its self attention are arranged."""

    build: Callable[[], Any]
    generate: Callable[[Any], torch.Tensor]
    layouts: set[tuple[int, int]]
    branches: int = 1


KINDS = {
    "LTXCondition without any": Kind(build_ltx_condition_pipeline, run_ltx, {(0, 0)}),
    "LTXI2VLongMultiPrompt": Kind(build_ltx_long_pipeline, lambda pipe: run_ltx(pipe, **LONG), {(0, 0), (0, 6)}),
    "LTX2ImageToVideo": Kind(
        lambda: build_ltx2_0_pipeline(kind="LTX2ImageToVideoPipeline"),
        lambda pipe: run_ltx2(pipe, image=build_image(), use_cross_timestep=False),
        {(0, 0)},
        3,
    ),
    "LTX2Condition": Kind(lambda: build_ltx2_pipeline(kind="LTX2ConditionPipeline"), run_ltx2_conditions, {(0, 6)}, 3),
    "LTX2InContext": Kind(lambda: build_ltx2_pipeline(kind="LTX2InContextPipeline"), run_ltx2_reference, {(0, 18)}, 3),
}
"""Frames that condition the video have 6 tokens each. They stand in front of it or behind."""


@pytest.mark.parametrize("name", KINDS)
def test_it_runs_as_it_does_alone_and_in_another_order(name: str) -> None:
    kind = KINDS[name]
    pipe = kind.build()
    bare, backend = kind.generate(pipe), Watching()
    with attach(pipe, attention_backend="TORCH_SDPA", cache=Scripted("C", Signal.MODULATED_INPUT)) as fv:
        assert torch.equal(kind.generate(pipe), bare)
    assert len(fv.receipt.steps_computed) == kind.branches
    with attach(pipe, attention_backend=backend):
        kind.generate(pipe)
    layouts = {call.layout for call in backend.calls if call.role is Role.SELF}
    assert {(layout.text_before, layout.text_after) for layout in layouts} == kind.layouts
    assert {layout.grid for layout in layouts} == {GRID}
    with attach(pipe, attention_backend=Watching(ordered=True)):
        torch.testing.assert_close(kind.generate(pipe), bare, rtol=1e-3, atol=1e-3)


def coordinates(frames: Sequence[float], height: int = 2, width: int = 3) -> torch.Tensor:
    """Of the tokens of frames at these seconds, (1, 3, tokens)."""
    axes = torch.meshgrid(torch.tensor(frames), torch.arange(height) * 32.0, torch.arange(width) * 32.0, indexing="ij")
    return torch.stack([axis.flatten() for axis in axes])[None]


@pytest.mark.parametrize(
    ("frames", "layout"),
    [
        ([0.0, 0.1, 0.2], TokenLayout(GRID)),
        ([0.0], TokenLayout((1, 2, 3))),
        ([0.1, 0.2, 0.0, 0.1, 0.2], TokenLayout(GRID, text_before=12)),
        ([0.1, 0.1, 0.0, 0.1, 0.2], TokenLayout(GRID, text_before=12)),
        ([0.0, 0.1, 0.2, 0.0, 0.1, -0.1], TokenLayout(GRID, text_after=18)),
    ],
)
def test_coordinates_tell_the_grid_and_what_stands_beside_it(frames: list[float], layout: TokenLayout) -> None:
    told = coordinates(frames)
    assert FAMILIES["LTX-Video"].token_layout({}, {"video_coords": told}) == layout


@pytest.mark.parametrize(
    "told", [coordinates([0.1, 0.2]), coordinates([0.0, 0.1])[:, :, :-1], coordinates([0.0, 0.1])[:, :, [0, 2, 1, 3]]]
)
def test_coordinates_of_no_grid_are_refused(told: torch.Tensor) -> None:
    with pytest.raises(
        UnsupportedModelError, match=rf"gives its {told.shape[2]} tokens are not those of frames of one"
    ):
        FAMILIES["LTX-Video"].token_layout({}, {"video_coords": told})


def test_coordinates_are_read_once_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, read, reads = build_ltx_condition_pipeline(), torch.Tensor.cpu, list[torch.Size]()

    def cpu(tensor: torch.Tensor) -> torch.Tensor:
        reads.append(tensor.shape)
        return read(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    with attach(pipe):
        for runs in (1, 2):
            run_ltx(pipe, conditions=conditions(0, 8))
            assert reads.count(torch.Size([3, 24])) == runs


def test_frames_in_front_are_not_for_sliding_tiles() -> None:
    pipe = build_ltx_condition_pipeline()
    with (
        attach(pipe, attention_backend="SLIDING_TILE_ATTN"),
        pytest.raises(BackendMismatchError, match="behind the video; LTX-Video has 6 such tokens in front of it"),
    ):
        run_ltx(pipe, conditions=conditions(8))


@pytest.mark.parametrize(("perturbed", "calls"), [(True, (15, 18, 57)), (False, (18, 18, 60))])
def test_guidance_leaves_out_what_the_model_does(perturbed: bool, calls: tuple[int, ...]) -> None:
    """3 steps of 3 passes through 2 layers: one block does not attend in the second, no streams meet in the third."""
    pipe = build_ltx2_pipeline(perturbed_attn=perturbed)
    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        run_ltx2(pipe)
    assert fv.receipt.steps_computed == {"cond_uncond": 3, "uncond_stg": 3, "uncond_modality": 3}
    assert tuple(fv.receipt.attention[role].calls for role in ("SELF", "CROSS", "AUDIO")) == calls


def test_a_mask_of_the_video_tokens_has_no_place_in_another_order() -> None:
    pipe = build_ltx2_pipeline(kind="LTX2InContextPipeline")
    options = {"conditioning_attention_strength": 0.5}
    bare = run_ltx2_reference(pipe, **options)
    with attach(pipe, attention_backend="TORCH_SDPA"):
        assert torch.equal(run_ltx2_reference(pipe, **options), bare)
    backend = Watching(ordered=True)
    backend.capabilities = type(backend.capabilities)(
        roles=frozenset(Role), lossless=True, masks=frozenset({MaskKind.NONE, MaskKind.ARBITRARY})
    )
    expected = "the model passes a mask of shape .* over video tokens, which it has in another order"
    with attach(pipe, attention_backend=backend), pytest.raises(BackendMismatchError, match=expected):
        run_ltx2_reference(pipe, **options)


@dataclass
class Forecasting(CachePolicy):
    """Computes two steps, then forecasts the mean of their residuals; keeps what it was asked with."""

    name = "FORECASTING"
    history = 2
    first_blocks: int = 0
    last_blocks: int = 0
    sees_others = True
    asked: list[tuple[Step, tuple[Computed, ...]]] = field(default_factory=list)

    def decide(self, step: Step, state: Any) -> Action:
        return Action.COMPUTE if step.index < 2 else Action.FORECAST

    def forecast(self, step: Step, state: Any, computed: Sequence[Computed]) -> torch.Tensor:
        self.asked.append((step, tuple(computed)))
        return computed[0].residual / 2 + computed[1].residual / 2

    def start(self, branch: Branch) -> Any:
        return None


@pytest.mark.parametrize(("first", "last"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_a_forecast_is_made_of_each_stream(first: int, last: int) -> None:
    """Three blocks; what comes out of those that are left out is what entered them and the mean of two residuals."""
    pipe, policy = build_ltx2_pipeline(num_layers=3), Forecasting(first_blocks=first, last_blocks=last)
    entered: list[list[tuple[torch.Tensor, ...]]] = [[] for _ in range(3)]
    left: list[list[tuple[torch.Tensor, ...]]] = [[] for _ in range(3)]
    with ExitStack() as undo:
        for number, block in enumerate(pipe.transformer.transformer_blocks):

            def before(module: Any, args: Any, kwargs: Any, number: int = number) -> None:
                entered[number].append(tuple(one.clone() for one in (*args, *kwargs.values())[:2]))

            def after(module: Any, args: Any, output: Any, number: int = number) -> None:
                left[number].append(output)

            undo.callback(block.register_forward_pre_hook(before, with_kwargs=True).remove)
            undo.callback(block.register_forward_hook(after).remove)
        norms: list[list[torch.Tensor]] = [[], []]
        for stream, norm in enumerate((pipe.transformer.norm_out, pipe.transformer.audio_norm_out)):
            hook = norm.register_forward_pre_hook(lambda module, args, own=norms[stream]: own.append(args[0].clone()))
            undo.callback(hook.remove)
        with attach(pipe, cache=policy) as fv:
            run_ltx2(pipe)
    assert fv.receipt.cache is not None
    assert set(fv.receipt.cache.schedule.values()) == {"CCF"}
    assert [len(passes) for passes in entered] == [9 if n < first or n >= 3 - last else 6 for n in range(3)]
    for number, branch in enumerate(fv.receipt.cache.schedule):
        for stream, norm in enumerate(norms):
            past = [left[2 - last][step + number][stream] - entered[first][step + number][stream] for step in (0, 3)]
            step, computed = policy.asked[2 * number + stream]
            came = left[first - 1][6 + number][stream] if first else step.hidden
            got = entered[3 - last][6 + number][stream] if last else norm[6 + number]
            torch.testing.assert_close(got, came + (past[0] + past[1]) / 2, rtol=1e-5, atol=1e-5)
            assert [one.index for one in computed] == [0, 1]
            assert list(step.others) == list(fv.receipt.cache.schedule)[:number], branch
            assert all(one.shape[1:] == step.hidden.shape[1:] for one in step.others.values())


def test_a_pipeline_that_never_enters_its_bar_is_refused() -> None:
    pipe = build_ltx2_pipeline(kind="LTX2DFRPipeline", use_keyframes_abs_pos_embedding=True)
    with (
        attach(pipe),
        pytest.raises(AttachError, match="LTX2DFRPipeline neither enters its progress bar nor goes through it"),
    ):
        pipe("cat", height=64, width=96, num_frames=17, frame_rate=8.0, output_type="latent", max_sequence_length=8)


@pytest.mark.parametrize("kind", ["LTXLatentUpsamplePipeline", "LTX2LatentUpsamplePipeline"])
def test_a_pipeline_without_a_transformer_is_refused(kind: str) -> None:
    import diffusers

    with pytest.raises(UnsupportedModelError, match=f"this {kind} has no transformer; it has"):
        attach(getattr(diffusers, kind)(vae=None, latent_upsampler=None))


def test_a_window_that_is_left_early_ends_its_run() -> None:
    pipe = build_ltx_long_pipeline()
    bare = run_ltx(pipe, **LONG)

    def stop(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = True
        return {}

    def fail(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        raise OSError("no more")

    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        run_ltx(pipe, callback_on_step_end=stop, **LONG)
        assert fv.receipt.interrupted
        with pytest.raises(OSError, match="no more"):
            run_ltx(pipe, callback_on_step_end=fail, **LONG)
        with pytest.raises(AttachError, match="there is no receipt"):
            _ = fv.receipt
        assert torch.equal(run_ltx(pipe, **LONG), bare)
        assert not fv.receipt.interrupted


def test_a_generator_writes_the_audio_too(tmp_path: Path) -> None:
    import av

    build_ltx2_pipeline().save_pretrained(tmp_path / "model")
    size = {name: LTX_SIZE[name] for name in ("height", "width", "num_frames", "num_inference_steps")}
    options = {**size, "fps": 8, "guidance_scale": 3.0, "negative_prompt": "dog"}
    with VideoGenerator.from_pretrained(tmp_path / "model", attention_backend="TORCH_SDPA") as generator:
        result = generator.generate_video("cat", output_path=tmp_path, **options)
    assert result.audio is not None
    assert (result.audio.rate, result.audio.samples.shape) == (16000, (2, 836))
    with av.open(str(result.video_path)) as container:
        assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert heard.shape[1] >= 836
    assert result.receipt.steps_computed == {"cond_uncond": 3, "uncond_stg": 3, "uncond_modality": 3}
    result.audio.samples[0, 5] = np.nan
    with pytest.raises(
        BackendOutputError, match="the audio holds NaN or infinity; attention was computed by TORCH_SDPA"
    ):
        check_finite(result)


def test_what_stands_beside_the_grid_stays_there_in_another_order() -> None:
    """Two tokens in front, three behind, and between them the grid's three backwards with one place of padding."""
    own = TokenOrder(torch.tensor([2, 1, 0, 2]), torch.tensor([2, 1, 0]))
    order = in_stream(own, TokenLayout((1, 1, 3), text_before=2, text_after=3))
    assert order.gather.tolist() == [0, 1, 4, 3, 2, 4, 5, 6, 7]
    assert order.scatter.tolist() == [0, 1, 4, 3, 2, 6, 7, 8]
    assert in_stream(own, TokenLayout((1, 1, 3))) is own
