"""Compiled blocks: one whole graph a kind of block, whatever backend serves, however many layers and generators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import Attachment, Signal, VideoGenerator, attach
from fastvideo_core.errors import BackendUnavailableError, InputError, UnsupportedModelError
from tests.support.backends import Recorder
from tests.support.models import (
    SIZE,
    build_hunyuan_pipeline,
    build_ltx_pipeline,
    build_wan_image_pipeline,
    build_wan_pipeline,
    run_to_latents,
)
from tests.support.policies import PIPELINES, Scripted

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def graphs() -> Any:
    """Counts the graphs that torch.compile makes."""
    from torch._dynamo.utils import counters

    reset()
    yield lambda: counters["stats"]["unique_graphs"]
    reset()


def reset() -> None:
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()


def compiler(traced: bool) -> str:
    """What compiles: Dynamo alone makes and counts the graphs; one of each kind is traced by AOTAutograd as well."""
    return "aot_eager" if traced else "eager"


@pytest.mark.parametrize(
    ("backend", "build", "most"),
    [
        ("TORCH_SDPA", build_wan_pipeline, 1),
        ("RECORDER", build_wan_pipeline, 1),
        ("RECORDER", build_wan_image_pipeline, 1),
        ("RECORDER", build_hunyuan_pipeline, 5),
        ("RECORDER", build_ltx_pipeline, 1),
    ],
)
def test_no_more_graphs_than_the_bare_model_has(
    backend: str, build: Callable[[], Any], most: int, recorder: Recorder, graphs: Callable[[], int]
) -> None:
    pipe = build()
    more = image() if "image_encoder" in pipe.components else {}
    if build is build_ltx_pipeline:
        more = {"height": 64, "width": 96, "num_frames": 17, "negative_prompt": "dog"}
    bare = run_to_latents(pipe, **more)
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=compiler(build is build_wan_pipeline))
    run_to_latents(pipe, **more)
    assert graphs() == most, "what diffusers compiles has changed"
    reset()
    with attach(pipe, attention_backend=backend) as fv:
        frames = run_to_latents(pipe, **more)
        receipt = fv.receipt
    np.testing.assert_allclose(frames, bare, atol=1e-4)
    assert graphs() == most
    assert {role.backend for role in receipt.attention.values()} == {backend}
    if backend == "RECORDER":
        last = [seen[:5] for seen in recorder.seen]
        layers = {layer for role, _, _, _, layer in last if role == last[0][0]}
        assert layers == set(range(len(layers)))
        assert sum(role.calls for role in receipt.attention.values()) == len(recorder.seen)


def image() -> dict[str, Any]:
    from PIL import Image

    return {"image": Image.new("RGB", (48, 32), "red")}


def test_generators_that_come_and_go_share_the_graph(wan_folder: Path, graphs: Callable[[], int]) -> None:
    arguments: dict[str, Any] = {**SIZE, "guidance_scale": 3.0, "save_video": False}
    with VideoGenerator.from_pretrained(wan_folder) as eager:
        expected = eager.generate_video("cat", **arguments).frames
        for _ in range(4):
            with VideoGenerator.from_pretrained(wan_folder, compile=True) as generator:
                result = generator.generate_video("cat", **arguments)
                np.testing.assert_allclose(result.frames, expected, atol=1e-4)
                assert result.receipt.compiled
    assert graphs() == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_compiler_is_told_so(wan_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"on 'cpu', for which torch needs a C\+\+ compiler, and there is none"):
        VideoGenerator.from_pretrained(wan_folder, compile=True)
    with pytest.raises(BackendUnavailableError, match=r"needs a C\+\+ compiler on a CPU, and there is none"):
        VideoGenerator.from_pretrained(wan_folder, attention_backend="SLIDING_TILE_ATTN")


def test_compile_and_offloading_exclude_each_other(wan_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(InputError, match="compile and dit_cpu_offload exclude each other"):
        VideoGenerator.from_pretrained(wan_folder, compile=True, dit_cpu_offload=True)


@pytest.mark.parametrize("kind", ["Wan 2.1", "Wan 2.2", "HunyuanVideo", "LTX-Video"])
def test_caching_makes_no_graphs_and_changes_nothing_else(kind: str, graphs: Callable[[], int]) -> None:
    build, options = PIPELINES[kind]
    pipe = build()
    scripts = [Scripted("CRF"), Scripted("CFR", Signal.FIRST_BLOCK_OUTPUT), Scripted("CRC", Signal.MODULATED_INPUT)]
    with attach(pipe) as fv:
        eager = [run_with(fv, script, options) for script in scripts]
    for transformer in (pipe.transformer, getattr(pipe, "transformer_2", None)):
        if transformer is not None:
            transformer.compile_repeated_blocks(fullgraph=True, backend=compiler(kind == "Wan 2.1"))
    with attach(pipe) as fv:
        run_to_latents(pipe, **options)
        without = graphs()
        for script, expected in zip(scripts, eager, strict=True):
            np.testing.assert_allclose(run_with(fv, script, options), expected, atol=1e-5)
    assert graphs() == without


def run_with(fv: Attachment, policy: Scripted, options: dict[str, Any]) -> Any:
    fv.use_cache(policy)
    return run_to_latents(fv.pipe, **options)


@pytest.mark.parametrize("fullgraph", [False, True])
def test_a_whole_transformer_compiled_is_one_graph(
    fullgraph: bool, graphs: Callable[[], int], recorder: Recorder
) -> None:
    pipe = build_wan_pipeline()
    bare = run_to_latents(pipe)
    pipe.transformer.compile(fullgraph=fullgraph, backend="aot_eager")
    with attach(pipe, attention_backend="RECORDER") as fv:
        np.testing.assert_allclose(run_to_latents(pipe), bare, atol=1e-4)
        assert fv.receipt.compiled
    assert graphs() == 1
    roles = {layer: [seen[0].value for seen in recorder.seen if seen[4] == layer] for layer in range(2)}
    assert roles == {layer: ["SELF", "CROSS"] * 2 * SIZE["num_inference_steps"] for layer in range(2)}


@pytest.mark.parametrize("signal", [Signal.NONE, Signal.MODULATED_INPUT, Signal.FIRST_BLOCK_OUTPUT])
def test_a_whole_transformer_compiled_with_a_policy(signal: Signal, graphs: Callable[[], int]) -> None:
    """However many steps there are: 0.1.0 compiled anew at every new length of the schedule, until torch gave up."""
    pipe = build_wan_pipeline()
    script = "CRRCRCCRRRCRCCRRCRCRRCRC"
    with attach(pipe, cache=Scripted(script, signal)):
        expected = run_to_latents(pipe, num_inference_steps=24)
    pipe.transformer.compile(backend=compiler(signal is Signal.MODULATED_INPUT))
    with attach(pipe, cache=Scripted(script, signal)) as fv:
        run_to_latents(pipe, num_inference_steps=4)
        after_four = graphs()
        np.testing.assert_allclose(run_to_latents(pipe, num_inference_steps=24), expected, atol=1e-5)
        assert fv.receipt.compiled
        assert fv.receipt.steps_skipped == {"cond": 13, "uncond": 13}
    assert graphs() == after_four <= 12


def test_the_operator_is_what_torch_asks_of_one() -> None:
    from fastvideo_core.engine.attention.operator import _opaque

    q, k = torch.randn(1, 5, 2, 8), torch.randn(1, 7, 2, 8)
    for mask in (None, torch.ones(1, 1, 1, 7, dtype=torch.bool)):
        tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
        torch.library.opcheck(_opaque, (q, k, k, mask, 0.3, "CROSS", -1), test_utils=tests)
    assert torch.Tag.cudagraph_unsafe in torch.ops.fastvideo_core.attention.default.tags


def whole_by_forward(pipe: Any) -> None:
    pipe.transformer.forward = torch.compile(pipe.transformer.forward, backend="eager")


def one_block(pipe: Any) -> None:
    pipe.transformer.blocks[0].compile(backend="eager")


def one_block_wrapped(pipe: Any) -> None:
    pipe.transformer.blocks[0] = torch.compile(pipe.transformer.blocks[0], backend="eager")


@pytest.mark.parametrize("compiled", [whole_by_forward, one_block, one_block_wrapped])
def test_whatever_way_it_was_compiled_the_receipt_says_so(compiled: Callable[[Any], None]) -> None:
    pipe = build_wan_pipeline()
    with attach(pipe, cache=Scripted("CRC", Signal.MODULATED_INPUT)) as fv:
        expected = run_to_latents(pipe)
        assert not fv.receipt.compiled
    compiled(pipe)
    with attach(pipe, cache=Scripted("CRC", Signal.MODULATED_INPUT)) as fv:
        np.testing.assert_allclose(run_to_latents(pipe), expected, atol=1e-5)
        assert fv.receipt.compiled


def test_a_transformer_in_a_wrapper_is_refused_with_what_to_do_instead() -> None:
    pipe = build_wan_pipeline()
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    with pytest.raises(UnsupportedModelError, match=r"compile it in place: pipe\.transformer\.compile\(\)"):
        attach(pipe)
