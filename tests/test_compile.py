"""Compiled blocks: one whole graph a kind of block, whatever backend serves, however many layers and generators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import Attachment, Signal, VideoGenerator, attach
from fastvideo_core.errors import BackendUnavailableError, InputError
from tests.support.backends import Recorder
from tests.support.models import (
    SIZE,
    build_hunyuan_pipeline,
    build_ltx_pipeline,
    build_wan_image_pipeline,
    build_wan_pipeline,
    run,
)
from tests.support.policies import PIPELINES, Scripted


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
    bare = run(pipe, **more)
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend="aot_eager")
    run(pipe, **more)
    assert graphs() == most, "what diffusers compiles has changed"
    reset()
    with attach(pipe, attention_backend=backend) as fv:
        frames = run(pipe, **more)
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
        for _ in range(10):
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
            transformer.compile_repeated_blocks(fullgraph=True, backend="aot_eager")
    with attach(pipe) as fv:
        run(pipe, **options)
        without = graphs()
        for script, expected in zip(scripts, eager, strict=True):
            np.testing.assert_allclose(run_with(fv, script, options), expected, atol=1e-5)
    assert graphs() == without


def run_with(fv: Attachment, policy: Scripted, options: dict[str, Any]) -> Any:
    fv.use_cache(policy)
    return run(fv.pipe, **options)
