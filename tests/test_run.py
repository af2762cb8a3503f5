"""A run has an owner: one at a time on a transformer, in one thread; all else runs as bare diffusers."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

from fastvideo_core import Generation, attach, hookimpl
from fastvideo_core.engine.forward_pass import current_pass
from fastvideo_core.errors import AttachError, BackendError
from tests.support.backends import Recorder, core_alone
from tests.support.models import SIZE, build_wan_pipeline, build_wan_transformer
from tests.support.models import run_to_latents as run
from tests.support.policies import PIPELINES, Scripted

STEPS = SIZE["num_inference_steps"]


def twin_of(pipe: Any) -> Any:
    """Another pipeline with the same parts, as diffusers' users make them; its loop has a scheduler of its own."""
    twin = WanPipeline(**{**pipe.components, "scheduler": type(pipe.scheduler).from_config(pipe.scheduler.config)})
    twin.set_progress_bar_config(disable=True)
    return twin


def at_step(step: int, action: Callable[[], object]) -> dict[str, Any]:
    """The option of a pipeline that runs an action behind a step."""

    def callback(pipe: Any, number: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if number == step:
            action()
        return {}

    return {"callback_on_step_end": callback}


def in_thread(action: Callable[[], object]) -> Any:
    """What the action returns or raises in a thread of its own."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(action())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work, name="another")
    thread.start()
    thread.join()
    return found[0]


def test_another_pipeline_with_the_same_transformer_is_bare(wan_pipeline: Any, recorder: Recorder) -> None:
    twin = twin_of(wan_pipeline)
    bare = run(twin), run(twin, seed=2)
    with attach(wan_pipeline, attention_backend="RECORDER", cache=Scripted("CRR")) as fv:
        assert np.array_equal(run(twin), bare[0])
        run(wan_pipeline)
        calls = len(recorder.seen)
        assert np.array_equal(run(twin), bare[0])
        assert np.array_equal(run(twin, seed=2), bare[1])
        assert fv.receipt.steps_computed == {"cond": 1, "uncond": 1}
    assert len(recorder.seen) == calls


@pytest.mark.parametrize("kind", ["Wan 2.1", "HunyuanVideo", "LTX-Video", "CogVideoX", "Mochi"])
def test_a_transformer_called_by_hand_is_bare(kind: str, recorder: Recorder) -> None:
    build, options = PIPELINES[kind]
    pipe, calls = build(), list[tuple[Any, Any]]()
    hook = pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    run(pipe, **options)
    hook.remove()
    args, kwargs = calls[0]
    with torch.no_grad():
        bare = pipe.transformer(*args, **kwargs)[0]
        with attach(pipe, attention_backend="RECORDER", cache=Scripted("CR")):
            assert torch.equal(pipe.transformer(*args, **kwargs)[0], bare)
            run(pipe, **options)
            seen = len(recorder.seen)
            assert torch.equal(pipe.transformer(*args, **kwargs)[0], bare)
    assert len(recorder.seen) == seen


def test_what_a_callback_runs_is_not_the_run_s(wan_pipeline: Any, recorder: Recorder) -> None:
    twin = twin_of(wan_pipeline)
    expected = run(twin, seed=3)
    by_hand = torch.randn(1, 16, 3, 4, 6), torch.tensor([500]), torch.randn(1, 7, 16)
    found: list[Any] = []

    def others() -> None:
        found.append(run(twin, seed=3))
        with torch.no_grad():
            wan_pipeline.transformer(*by_hand)

    with attach(wan_pipeline, attention_backend="RECORDER", cache=Scripted("CRC")) as fv:
        alone = run(wan_pipeline)
        seen = len(recorder.seen)
        assert np.array_equal(run(wan_pipeline, **at_step(0, others)), alone)
        assert fv.receipt.steps_computed == {"cond": 2, "uncond": 2}
    assert len(recorder.seen) == 2 * seen
    assert np.array_equal(found[0], expected)


def test_a_transformer_has_one_owner(wan_pipeline: Any) -> None:
    twin = twin_of(wan_pipeline)
    with attach(wan_pipeline):
        with pytest.raises(
            AttachError, match=r"this WanTransformer3DModel is attached already; .* attached with a WanPipeline"
        ):
            attach(twin)
        with pytest.raises(AttachError, match="this WanPipeline is attached already"):
            attach(wan_pipeline)
        wan_pipeline.transformer = build_wan_transformer()
        with pytest.raises(AttachError, match="this WanPipeline is attached already"):
            attach(wan_pipeline)
    with attach(twin), attach(wan_pipeline):
        run(twin), run(wan_pipeline)


def test_attachments_come_off_in_any_order() -> None:
    pipes = [build_wan_pipeline(seed) for seed in range(3)]
    bare = [run(pipe) for pipe in pipes]
    attachments = [attach(pipe, cache=Scripted("CR")) for pipe in pipes]
    for number in (1, 0, 2):
        attachments[number].detach()
        assert np.array_equal(run(pipes[number]), bare[number])
        assert type(pipes[number].transformer.blocks) is torch.nn.ModuleList


def test_a_second_thread_is_refused_at_once_and_the_first_goes_on(wan_pipeline: Any) -> None:
    expected = run(wan_pipeline)
    refused: list[Any] = []

    def from_another_thread() -> None:
        refused.extend(
            in_thread(action)
            for action in (
                lambda: run(wan_pipeline, prompt="dog", num_inference_steps=7),
                fv.detach,
                lambda: fv.use_cache("none"),
            )
        )

    with attach(wan_pipeline, attention_backend="TORCH_SDPA") as fv:
        assert np.array_equal(run(wan_pipeline, **at_step(0, from_another_thread)), expected)
        assert fv.receipt.steps_computed == {"cond": STEPS, "uncond": STEPS}
    assert [type(error) for error in refused] == [AttachError] * 3
    assert "this WanPipeline is generating in the thread MainThread" in str(refused[0])


def test_a_second_call_is_refused_also_before_the_first_one_s_loop(wan_pipeline: Any) -> None:
    """Its scheduler is the first one's: to set other timesteps on it would change the first one's video."""
    expected = run(wan_pipeline)
    refused: list[Any] = []
    encode = wan_pipeline.encode_prompt

    def encode_prompt(**kwargs: Any) -> Any:
        if not refused:
            refused.append(in_thread(lambda: run(wan_pipeline, num_inference_steps=7)))
        return encode(**kwargs)

    with attach(wan_pipeline, attention_backend="TORCH_SDPA"):
        wan_pipeline.encode_prompt = encode_prompt
        assert np.array_equal(run(wan_pipeline), expected)
    assert isinstance(refused[0], AttachError)


def test_nothing_is_taken_off_in_the_middle(wan_pipeline: Any) -> None:
    with attach(wan_pipeline) as fv:
        for action in (fv.detach, lambda: run(wan_pipeline), lambda: fv.use_cache("none")):
            with pytest.raises(AttachError, match="is generating in this thread: it makes one video at a time"):
                run(wan_pipeline, **at_step(1, action))
        run(wan_pipeline)


def test_an_interrupt_that_no_loop_sees_leaves_a_usable_pipeline(wan_pipeline: Any) -> None:
    """Between the entry of the progress bar and the loop, say: nobody is told that the run is over."""

    def broken_off() -> None:
        wan_pipeline.progress_bar(total=3).__enter__()

    bare = run(wan_pipeline)
    with attach(wan_pipeline, attention_backend="TORCH_SDPA") as fv:
        broken_off()
        assert np.array_equal(run(wan_pipeline), bare)
        broken_off()
        fv.detach()
    assert np.array_equal(run(wan_pipeline), bare)


def test_a_receipt_is_never_that_of_the_run_before(wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with attach(wan_pipeline) as fv:
        run(wan_pipeline)
        assert not fv.receipt.interrupted
        with pytest.raises(ValueError, match="divisible by 16"):
            run(wan_pipeline, height=33)
        with pytest.raises(AttachError, match="or its latest call failed"):
            _ = fv.receipt
        run(wan_pipeline, **at_step(0, lambda: setattr(wan_pipeline, "_interrupt", True)))
        assert fv.receipt.interrupted
        assert fv.receipt.steps_computed == {"cond": 1, "uncond": 1}


class Watching:
    """A plugin that keeps what it is told."""

    api_version = 2
    __name__ = "watching"

    def __init__(self) -> None:
        self.told: list[tuple[str, BaseException | None]] = []

    @hookimpl
    def fastvideo_generation_started(self, generation: Generation) -> None:
        self.told.append(("started", None))

    @hookimpl
    def fastvideo_generation_failed(self, generation: Generation, error: BaseException) -> None:
        self.told.append(("failed", error))


def test_the_model_s_error_is_what_is_seen_when_the_clean_up_fails_too(
    wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastvideo_core.discovery.plugins import Plugin, Plugins, _register

    watching, plugin = Watching(), Plugin("watching", "acme", "1.0")
    _register(plugin, watching)  # type: ignore[arg-type]  # an object does as well as a module
    monkeypatch.setattr("fastvideo_core.engine.attachment.load_plugins", lambda: Plugins([*core_alone().all, plugin]))
    bare = run(wan_pipeline)
    policy = Scripted("CR")
    with attach(wan_pipeline, cache=policy) as fv:
        with monkeypatch.context() as patched:
            patched.setattr("fastvideo_core.engine.ending.synchronize", raiser(RuntimeError("CUDA again")))
            with pytest.raises(ZeroDivisionError, match="in the model") as raised:
                run(wan_pipeline, **at_step(1, raiser(ZeroDivisionError("in the model"))))
        assert raised.value.__notes__ == ["then, while the run was cleaned up: RuntimeError: CUDA again"]
        assert watching.told == [("started", None), ("failed", raised.value)]
        with pytest.raises(AttachError):
            _ = fv.receipt
        with monkeypatch.context() as patched:
            patched.setattr("fastvideo_core.engine.ending.synchronize", raiser(RuntimeError("CUDA")))
            with pytest.raises(RuntimeError, match="CUDA"):
                run(wan_pipeline)
        run(wan_pipeline)
    assert np.array_equal(run(wan_pipeline), bare)


def raiser(error: BaseException) -> Callable[..., Any]:
    def fail(*args: Any) -> None:
        raise error

    return fail


@pytest.mark.slow
@pytest.mark.parametrize("kind", PIPELINES)
def test_detaching_lets_go_of_the_model(kind: str) -> None:
    build, options = PIPELINES[kind]
    pipe = build()
    transformer = weakref.ref(pipe.transformer)
    gc.disable()
    try:
        with attach(pipe, cache=Scripted("CR")):
            run(pipe, **options)
            with pytest.raises(ZeroDivisionError):
                run(pipe, **options, **at_step(0, lambda: 1 / 0))
        del pipe
        assert transformer() is None
    finally:
        gc.enable()


def test_a_call_by_hand_that_fails_leaves_nothing_under_way(wan_pipeline: Any) -> None:
    transformer = wan_pipeline.transformer
    with attach(wan_pipeline), pytest.raises(TypeError):
        transformer(torch.zeros(1, 16, 1, 2, 2))
    assert current_pass() is None


def test_after_detaching_what_needs_the_pipeline_says_so(wan_pipeline: Any) -> None:
    with attach(wan_pipeline) as fv:
        run(wan_pipeline)
    assert fv.receipt.num_inference_steps == STEPS
    for action in (lambda: fv.pipe, lambda: fv.use_cache("none")):
        with pytest.raises(AttachError, match="has been detached; attach it again"):
            action()
    fv.detach()


def test_a_pipeline_is_attached_again_after_it_was_moved(wan_pipeline: Any) -> None:
    with attach(wan_pipeline):
        wan_pipeline.to(torch.bfloat16)
        with pytest.raises(AttachError, match="was float32 on cpu when it was attached, and is bfloat16 on cpu now"):
            run(wan_pipeline)
    with attach(wan_pipeline) as fv:
        run(wan_pipeline)
        assert fv.receipt.dtype == "bfloat16"


def test_a_failed_attach_owns_nothing(wan_pipeline: Any) -> None:
    with pytest.raises(BackendError):
        attach(wan_pipeline, attention_backend="NO_SUCH")
    with attach(wan_pipeline):
        pass


def test_four_pipelines_in_four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    pipes = [build_wan_pipeline(seed) for seed in range(4)]
    expected = [run(pipe) for pipe in pipes]
    found: dict[int, Any] = {}
    with ExitStack() as undo:
        for pipe in pipes:
            undo.enter_context(attach(pipe, attention_backend="TORCH_SDPA"))
        threads = [
            threading.Thread(target=lambda n=number: found.update({n: run(pipes[n])})) for number in range(len(pipes))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(np.array_equal(found[number], expected[number]) for number in range(len(pipes)))


def test_layers_are_those_of_the_running_block(wan_pipeline: Any, recorder: Recorder) -> None:
    """Also where a block calls attention in another order, and where a run starts after one that was broken off."""
    with attach(wan_pipeline, attention_backend="RECORDER"):
        hook = wan_pipeline.transformer.blocks[1].attn2.register_forward_pre_hook(raiser(ZeroDivisionError()))
        with pytest.raises(ZeroDivisionError):
            run(wan_pipeline)
        hook.remove()
        recorder.seen.clear()
        run(wan_pipeline, guidance_scale=1.0, num_inference_steps=2)
    assert [(str(seen[0]), seen[2], seen[4]) for seen in recorder.seen] == [
        (role, step, layer) for step in range(2) for layer in range(2) for role in ("SELF", "CROSS")
    ]
