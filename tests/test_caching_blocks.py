"""First and last blocks that always run: what is computed, what is added, in any token order, compiled or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import Signal, attach
from fastvideo_core.errors import CacheError, PolicyMismatchError
from tests.support.models import run_to_latents as run
from tests.support.policies import PIPELINES, Scripted

TEXT_TOO = {"HunyuanVideo", "CogVideoX", "Mochi"}
KINDS: dict[str, dict[str, int]] = {
    "Wan 2.1": {"num_layers": 4},
    "HunyuanVideo": {"num_layers": 2, "num_single_layers": 2},
    "CogVideoX": {"num_layers": 4},
    "Mochi": {"num_layers": 4},
}
BLOCKS = 4
OPTIONS = {kind: PIPELINES[kind][1] for kind in KINDS}
SPANS = [(1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (1, 2)]


def build(kind: str) -> Any:
    """A pipeline of the kind with four blocks."""
    pipe = PIPELINES[kind][0]()
    torch.manual_seed(5)
    kept = pipe.transformer
    pipe.transformer = type(kept).from_config({**kept.config, **KINDS[kind]}).eval()
    return pipe


@dataclass
class Seen:
    """The video and text tokens that entered and left each block, pass after pass."""

    entered: list[tuple[int, tuple[torch.Tensor, ...]]] = field(default_factory=list)
    left: list[tuple[int, tuple[torch.Tensor, ...]]] = field(default_factory=list)


def blocks_of(transformer: Any) -> list[Any]:
    names = ("blocks", "transformer_blocks", "single_transformer_blocks")
    return [block for name in names for block in getattr(transformer, name, [])]


@contextmanager
def watched(transformer: Any) -> Iterator[Seen]:
    seen = Seen()
    with ExitStack() as undo:
        for number, block in enumerate(blocks_of(transformer)):

            def before(module: Any, args: Any, kwargs: Any, number: int = number) -> None:
                given = [*args, *kwargs.values()][:2]
                seen.entered.append((number, tuple(one.clone() for one in given)))

            def after(module: Any, args: Any, result: Any, number: int = number) -> None:
                parts = result if isinstance(result, tuple) else (result,)
                seen.left.append((number, tuple(one.clone() for one in parts)))

            undo.callback(block.register_forward_pre_hook(before, with_kwargs=True).remove)
            undo.callback(block.register_forward_hook(after).remove)
        yield seen


@pytest.mark.parametrize(("first", "last"), SPANS)
@pytest.mark.parametrize("kind", KINDS)
def test_they_run_and_the_others_residual_is_added(kind: str, first: int, last: int) -> None:
    pipe = build(kind)
    options = {**OPTIONS[kind], "guidance_scale": 1.0, "num_inference_steps": 3}
    with attach(pipe), watched(pipe.transformer) as bare:
        expected = run(pipe, **options)
    for signal in (Signal.NONE, Signal.HIDDEN):
        with attach(pipe, cache=Scripted("C", signal, first_blocks=first, last_blocks=last)):
            assert np.array_equal(run(pipe, **options), expected)
    policy = Scripted("CR", Signal.HIDDEN, first_blocks=first, last_blocks=last)
    with attach(pipe, cache=policy), watched(pipe.transformer) as seen:
        run(pipe, **options)
    always = [*range(first), *range(BLOCKS - last, BLOCKS)]
    ran = [number for number, _ in seen.entered]
    assert ran == [*range(BLOCKS), *always, *always]
    skipped_to = BLOCKS - last
    if last == 0:
        return
    enters_skipped = bare.entered[first][1]
    middle = [left - came for left, came in zip(bare.left[skipped_to - 1][1], enters_skipped, strict=False)]
    for step in (1, 2):
        begin = BLOCKS + (step - 1) * len(always)
        came = seen.left[begin + first - 1][1] if first else (policy.steps[step].hidden,)
        entered = seen.entered[begin + first][1]
        for added, base, got in zip(middle, came, entered, strict=False):
            torch.testing.assert_close(got, base + added, rtol=1e-5, atol=1e-5)
        if kind in TEXT_TOO and first:
            assert len(entered) == len(came) == len(middle) == 2


@pytest.mark.parametrize("signal", [Signal.HIDDEN, Signal.FIRST_BLOCK_OUTPUT])
def test_the_signal_is_what_it_says(signal: Signal) -> None:
    pipe = build("Wan 2.1")
    policy = Scripted("C", signal, first_blocks=2)
    with attach(pipe, cache=policy), watched(pipe.transformer) as seen:
        run(pipe, guidance_scale=1.0)
    for step, (_, entered), (_, left) in zip(policy.steps, seen.entered[::4], seen.left[1::4], strict=True):
        assert step.signal is not None
        assert torch.equal(step.hidden, entered[0])
        assert torch.equal(step.signal, entered[0] if signal is Signal.HIDDEN else left[0])


ORDERED = [
    (kind, first, last, bool((model + span) % 2))
    for model, kind in enumerate(("Wan 2.1", "HunyuanVideo", "Mochi"))
    for span, (first, last) in enumerate(SPANS)
]
"""Each kind and each span with a schedule that is planned, and with one that is decided step by step."""


@pytest.mark.parametrize(("kind", "first", "last", "ahead"), ORDERED)
def test_in_a_backend_s_token_order(
    kind: str, first: int, last: int, ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = build(kind)
    monkeypatch.setenv("FASTVIDEO_STA_TILE", "2,8,8")
    monkeypatch.setenv("FASTVIDEO_STA_WINDOW", "3,1,1")
    size = {"height": 64, "width": 48, "num_frames": 37 if kind == "Mochi" else 25}
    options = {**OPTIONS[kind], **size, "num_inference_steps": 3, "guidance_scale": 1.0}
    frames = []
    for order in ("forward", "layer"):
        monkeypatch.setenv("FASTVIDEO_STA_ORDER", order)
        policy = Scripted("CRF", Signal.NONE, ahead, first_blocks=first, last_blocks=last)
        with attach(pipe, attention_backend="SLIDING_TILE_ATTN", cache=policy) as fv:
            frames.append(run(pipe, **options))
        assert fv.receipt.cache is not None
        assert set(fv.receipt.cache.schedule.values()) == {"CRF"}
    np.testing.assert_allclose(frames[0], frames[1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True], ids=["blocks", "whole transformer"])
def test_compiled(whole: bool) -> None:
    frames = []
    for compiled in (False, True):
        torch.compiler.reset()
        pipe = build("Wan 2.1")
        if compiled and whole:
            pipe.transformer.compile(backend="aot_eager")
        elif compiled:
            pipe.transformer.compile_repeated_blocks(fullgraph=True, backend="aot_eager")
        with attach(pipe, cache=Scripted("CCRC", Signal.FIRST_BLOCK_OUTPUT, first_blocks=2, last_blocks=1)) as fv:
            frames.append(run(pipe, num_inference_steps=4))
        assert fv.receipt.steps_skipped == {"cond": 1, "uncond": 1}
    torch.compiler.reset()
    np.testing.assert_allclose(frames[0], frames[1], atol=1e-5)


@pytest.mark.parametrize(
    ("first", "last", "signal", "message"),
    [
        (2, 2, Signal.NONE, r"the first 2 and the last 2 blocks, and .* has 4: there is nothing left to skip"),
        (0, 3, Signal.FIRST_BLOCK_OUTPUT, r"the first 1 and the last 3 blocks"),
    ],
)
def test_more_than_the_model_has_are_refused(first: int, last: int, signal: Signal, message: str) -> None:
    with pytest.raises(PolicyMismatchError, match=message):
        attach(build("Wan 2.1"), cache=Scripted("C", signal, first_blocks=first, last_blocks=last))


@pytest.mark.parametrize("value", [-1, 1.5, "2"])
def test_what_is_no_number_of_blocks_is_the_authors_fault(value: Any) -> None:
    with pytest.raises(CacheError, match=rf"has last_blocks={value!r}, it must be a whole number from 0 on"):
        attach(build("Wan 2.1"), cache=Scripted("C", last_blocks=value))
