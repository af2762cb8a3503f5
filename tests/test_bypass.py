"""Ways to go around a backend or a policy, or to break a run: each is an error in step 0 or before, and says where."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FirstBlockCacheConfig
from diffusers.models.attention_processor import CogVideoXAttnProcessor2_0
from diffusers.models.transformers.transformer_ltx import LTXVideoAttnProcessor
from diffusers.models.transformers.transformer_wan import WanAttnProcessor

from fastvideo_core import AttentionCall, AttentionFunction, attach
from fastvideo_core.errors import (
    AttachError,
    BackendMismatchError,
    BackendNotUsedError,
    BackendOutputError,
    FastVideoError,
    UnsupportedModelError,
)
from tests.support.backends import Recorder, plugins_with
from tests.support.models import (
    build_wan_pipeline,
    build_wan_transformer,
)
from tests.support.models import run_to_latents as run
from tests.support.policies import PIPELINES, Scripted

Break = Callable[[Any], object]


def own_processor(number: int, name: str) -> Break:
    return lambda pipe: getattr(pipe.transformer.blocks[number], name).set_processor(WanAttnProcessor())


def sdpa_processor(attention: Any, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """A processor of the user's own, which calls torch's attention itself."""
    heads = attention.to_v(hidden).unflatten(2, (attention.heads, -1)).transpose(1, 2)
    out = torch.nn.functional.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)
    result: torch.Tensor = attention.to_out[0](out)
    return result


def forward_without_attention(pipe: Any) -> None:
    block = pipe.transformer.blocks[1]
    block.forward = MethodType(lambda self, hidden, *args: hidden, block)


def called_twice(pipe: Any) -> None:
    attention = pipe.transformer.blocks[0].attn1
    processor = attention.processor

    def twice(*args: Any, **kwargs: Any) -> Any:
        processor(*args, **kwargs)
        return processor(*args, **kwargs)

    attention.forward = MethodType(lambda self, *args, **kwargs: twice(self, *args, **kwargs), attention)


def left_out(pipe: Any) -> None:
    block = pipe.transformer.blocks[0]
    block.attn2.forward = MethodType(lambda self, hidden, *args: hidden, block.attn2)


def own_forward(pipe: Any) -> None:
    """A forward of the transformer that goes through a copy of the list of its blocks."""
    blocks, forward = list(pipe.transformer.blocks), pipe.transformer.forward

    def replaced(self: Any, *args: Any, **kwargs: Any) -> Any:
        attached, self._modules["blocks"] = self._modules["blocks"], torch.nn.ModuleList(blocks)
        try:
            return forward(*args, **kwargs)
        finally:
            self._modules["blocks"] = attached

    pipe.transformer.forward = MethodType(replaced, pipe.transformer)


def one_block_fewer(pipe: Any) -> None:
    del pipe.transformer.blocks[1]


def another_block(pipe: Any) -> None:
    pipe.transformer.blocks[1] = build_wan_transformer().blocks[0]


def blocks_swapped(pipe: Any) -> None:
    blocks = pipe.transformer.blocks
    blocks[0], blocks[1] = blocks[1], blocks[0]


def another_list(pipe: Any) -> None:
    pipe.transformer.blocks = torch.nn.ModuleList(pipe.transformer.blocks)


def other_attention(pipe: Any) -> None:
    pipe.transformer.blocks[0].attn1 = build_wan_transformer().blocks[0].attn1


def other_transformer(name: str) -> Break:
    return lambda pipe: setattr(pipe, name, build_wan_transformer())


def own_cache(pipe: Any) -> None:
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=10.0))


def function_processor(pipe: Any) -> None:
    pipe.transformer.blocks[1].attn1.processor = sdpa_processor


def parallel(pipe: Any) -> None:
    pipe.transformer.blocks[0].attn1.processor._parallel_config = object()


def skips_a_block(pipe: Any) -> None:
    """As skip-layer guidance does: a block's call is answered by its input."""
    pipe.transformer.blocks[1].forward = lambda hidden, *args, **kwargs: hidden


def other_dtype_within(pipe: Any) -> None:
    pipe.transformer.blocks[0].attn1.register_forward_pre_hook(lambda module, args: (args[0].double(), *args[1:]))
    pipe.transformer.blocks[0].attn1.double()


class FirstOnly(torch.nn.Module):
    """A list of blocks that ends after the first one."""

    def __init__(self, blocks: Any) -> None:
        super().__init__()
        self.blocks = blocks

    def __iter__(self) -> Any:
        return itertools.islice(iter(self.blocks), 1)


def early_exit(pipe: Any) -> None:
    """A forward of the transformer that stops after the first block."""
    forward = pipe.transformer.forward

    def replaced(self: Any, *args: Any, **kwargs: Any) -> Any:
        attached = self._modules["blocks"]
        self._modules["blocks"] = FirstOnly(attached)
        try:
            return forward(*args, **kwargs)
        finally:
            self._modules["blocks"] = attached

    pipe.transformer.forward = MethodType(replaced, pipe.transformer)


def single_block_left_out(pipe: Any) -> None:
    pipe.transformer.single_transformer_blocks[1].attn.forward = lambda hidden_states, **kwargs: (
        hidden_states,
        kwargs["encoder_hidden_states"],
    )


def fresh_processor(pipe: Any) -> None:
    pipe.transformer.transformer_blocks[1].attn1.processor = CogVideoXAttnProcessor2_0()


WAN: dict[str, tuple[Break, type[FastVideoError], str]] = {
    "own processor, first block": (own_processor(0, "attn1"), BackendNotUsedError, r"blocks\.0\.attn1"),
    "own processor, last block": (own_processor(1, "attn1"), BackendNotUsedError, r"blocks\.1\.attn1"),
    "own processor, cross attention": (own_processor(1, "attn2"), BackendNotUsedError, r"blocks\.1\.attn2"),
    "a function as processor": (function_processor, BackendNotUsedError, r"blocks\.1\.attn1"),
    "all processors": (
        lambda pipe: pipe.transformer.set_attn_processor(WanAttnProcessor()),
        BackendNotUsedError,
        r"blocks\.0\.attn1",
    ),
    "set_attention_backend": (
        lambda pipe: pipe.transformer.set_attention_backend("native"),
        BackendNotUsedError,
        r"blocks\.0\.attn1",
    ),
    "reset_attention_backend": (
        lambda pipe: pipe.transformer.reset_attention_backend(),
        BackendNotUsedError,
        r"blocks\.0\.attn1",
    ),
    "a block's forward without attention": (forward_without_attention, BackendNotUsedError, r"blocks\.1\.attn1"),
    "a block left out": (skips_a_block, BackendNotUsedError, r"blocks\.1\.attn1"),
    "attention left out": (left_out, BackendNotUsedError, r"blocks\.0\.attn2 .* CROSS attention 0 times in step 0"),
    "attention called twice": (called_twice, BackendNotUsedError, r"blocks\.0\.attn1 .* SELF attention 2 times"),
    "the transformer's forward": (own_forward, BackendNotUsedError, "by none of the WanTransformer3DModel's blocks"),
    "an early exit": (early_exit, BackendNotUsedError, "of the 2 blocks of the WanTransformer3DModel ran in step 0"),
    "one block fewer": (one_block_fewer, BackendNotUsedError, "the blocks of transformer"),
    "another block": (another_block, BackendNotUsedError, "the blocks of transformer"),
    "blocks in another order": (blocks_swapped, BackendNotUsedError, "the blocks of transformer"),
    "another list of blocks": (another_list, BackendNotUsedError, "the blocks of transformer"),
    "another attention module": (other_attention, BackendNotUsedError, r"blocks\.0\.attn1"),
    "another transformer": (other_transformer("transformer"), BackendNotUsedError, "transformer of the WanPipeline"),
    "diffusers' own cache": (own_cache, AttachError, r"call its disable_cache\(\)"),
    "diffusers' own parallelism": (parallel, BackendMismatchError, "parallel_config=<object"),
    "another dtype": (lambda pipe: pipe.to(torch.bfloat16), AttachError, "is bfloat16 on cpu now"),
    "another dtype of the transformer": (
        lambda pipe: pipe.transformer.to(torch.float16),
        AttachError,
        "is float16 on cpu now",
    ),
}


EXPERTS: dict[str, tuple[Break, type[FastVideoError], str]] = {
    "the second expert": (
        other_transformer("transformer_2"),
        BackendNotUsedError,
        "transformer_2 of the WanPipeline is another",
    ),
    "a processor of the second expert": (
        lambda pipe: pipe.transformer_2.blocks[1].attn1.set_processor(WanAttnProcessor()),
        BackendNotUsedError,
        r"blocks\.1\.attn1 of transformer_2",
    ),
    "the second expert's dtype": (
        lambda pipe: pipe.transformer_2.to(torch.bfloat16),
        AttachError,
        "transformer_2 was float32 on cpu when it was attached, and is bfloat16",
    ),
    "the second expert's own cache": (
        lambda pipe: pipe.transformer_2.enable_cache(FirstBlockCacheConfig(threshold=10.0)),
        AttachError,
        r"call its disable_cache\(\)",
    ),
}
OTHERS: dict[str, tuple[str, Break, type[FastVideoError], str]] = {
    "the second list of blocks": (
        "HunyuanVideo",
        single_block_left_out,
        BackendNotUsedError,
        r"single_transformer_blocks\.1\.attn .* JOINT attention 0 times",
    ),
    "a processor that calls torch itself": (
        "CogVideoX",
        fresh_processor,
        BackendNotUsedError,
        r"transformer_blocks\.1\.attn1 of transformer has another",
    ),
    "another processor of LTX": (
        "LTX-Video",
        lambda pipe: pipe.transformer.transformer_blocks[0].attn2.set_processor(LTXVideoAttnProcessor()),
        BackendNotUsedError,
        r"transformer_blocks\.0\.attn2 of transformer has another",
    ),
}
WAYS = {
    **{way: ("Wan 2.1", *rest) for way, rest in WAN.items()},
    **{way: ("Wan 2.2", *rest) for way, rest in EXPERTS.items()},
    **OTHERS,
}


def noted(steps: list[int], pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
    steps.append(step)
    return {}


def test_there_are_thirty_ways() -> None:
    assert len(WAYS) == 30


@pytest.mark.parametrize("cache", [None, Scripted("C")], ids=["", "policy"])
@pytest.mark.parametrize("way", WAYS)
def test_a_way_around_is_an_error_in_step_0(way: str, cache: Scripted | None, recorder: Recorder) -> None:
    """Also where it would matter late only, as with the second expert."""
    kind, breaks, error, message = WAYS[way]
    build, options = PIPELINES[kind]
    pipe = build()
    steps: list[int] = []
    with attach(pipe, attention_backend="RECORDER", cache=cache) as fv:
        breaks(pipe)
        with pytest.raises(error, match=message):
            run(pipe, callback_on_step_end=partial(noted, steps), **options)
        with pytest.raises(AttachError):
            _ = fv.receipt
    assert not steps


class Broken(Recorder):
    """A backend whose output is changed before it is given back."""

    def __init__(self, change: Callable[[torch.Tensor], Any]) -> None:
        super().__init__("BROKEN", dtypes=frozenset({"float32"}))
        self.change = change

    def load(self) -> AttentionFunction:
        attend = super().load()

        def broken(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, call: AttentionCall) -> Any:
            return self.change(attend(q, k, v, call))

        return broken


OUTPUTS: dict[str, Callable[[torch.Tensor], Any]] = {
    "one token": lambda out: out[:, :1],
    "heads first": lambda out: out.transpose(1, 2),
    "two heads fewer": lambda out: out[:, :, :1],
    "float64": lambda out: out.double(),
    "another device": lambda out: out.to("meta"),
    "None": lambda out: None,
    "a tuple": lambda out: (out, None),
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_that_is_no_attention_of_the_inputs(
    output: str, wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Broken(OUTPUTS[output])
    monkeypatch.setattr("fastvideo_core.engine.attachment.load_plugins", lambda: plugins_with(backend))
    with (
        attach(wan_pipeline, attention_backend="BROKEN"),
        pytest.raises(BackendOutputError, match=r"BROKEN: SELF attention, layer 0, step 0, .* it returned .* expec"),
    ):
        run(wan_pipeline)
    assert len(backend.seen) == 1


def test_inputs_that_the_backend_does_not_declare(wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transformer is float32, and a part of it computes in float64: what is passed counts, not what is stored."""
    backend = Broken(lambda out: out)
    monkeypatch.setattr("fastvideo_core.engine.attachment.load_plugins", lambda: plugins_with(backend))
    with attach(wan_pipeline, attention_backend="BROKEN"):
        other_dtype_within(wan_pipeline)
        with pytest.raises(BackendMismatchError, match=r"it was called with .* the model is float64, it takes float32"):
            run(wan_pipeline)
    assert not backend.seen


def test_every_way_back_is_open(recorder: Recorder) -> None:
    """What was changed and changed back runs again in the same attachment."""
    pipe = build_wan_pipeline()
    with attach(pipe, attention_backend="RECORDER"):
        expected = run(pipe)
        attention = pipe.transformer.blocks[0].attn1
        processor, attention.processor = attention.processor, WanAttnProcessor()
        with pytest.raises(BackendNotUsedError):
            run(pipe)
        attention.processor = processor
        assert np.array_equal(run(pipe), expected)


MIDDLE: dict[str, tuple[Break, str]] = {
    "a block that is added": (
        lambda pipe: pipe.transformer.blocks.append(build_wan_transformer().blocks[0]),
        "block 2 of the WanTransformer3DModel was not there",
    ),
    "another transformer": (other_transformer("transformer"), "step 1 ran without a forward pass of transformer"),
}


@pytest.mark.parametrize("way", MIDDLE)
def test_what_is_exchanged_in_the_middle(way: str, recorder: Recorder) -> None:
    breaks, message = MIDDLE[way]
    pipe = build_wan_pipeline()
    steps: list[int] = []

    def callback(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        steps.append(step)
        if step == 0:
            breaks(pipe)
        return {}

    with attach(pipe, attention_backend="RECORDER") as fv:
        with pytest.raises(BackendNotUsedError, match=message):
            run(pipe, num_inference_steps=6, callback_on_step_end=callback)
        with pytest.raises(AttachError):
            _ = fv.receipt
    assert steps in ([0], [0, 1])


def test_a_second_expert_exchanged_in_the_middle(recorder: Recorder) -> None:
    pipe = build_wan_pipeline(experts=2)

    def callback(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe.transformer_2 = build_wan_transformer()
        return {}

    with (
        attach(pipe, attention_backend="RECORDER"),
        pytest.raises(BackendNotUsedError, match="ran without a forward pass of transformer and transformer_2"),
    ):
        run(pipe, num_inference_steps=6, callback_on_step_end=callback)


def test_a_block_that_stands_in_two_places() -> None:
    pipe = build_wan_pipeline()
    pipe.transformer.blocks[1] = pipe.transformer.blocks[0]
    with pytest.raises(UnsupportedModelError, match="a block stands in more than one place of blocks"):
        attach(pipe)


@pytest.mark.parametrize("way", ["own processor, last block", "a block left out", "attention left out"])
def test_a_way_around_that_opens_in_the_middle_ends_the_next_pass(way: str, recorder: Recorder) -> None:
    breaks, error, _ = WAN[way]
    pipe = build_wan_pipeline()
    steps: list[int] = []

    def callback(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        steps.append(step)
        breaks(pipe)
        return {}

    with attach(pipe, attention_backend="RECORDER"), pytest.raises(error, match="in step 1"):
        run(pipe, callback_on_step_end=callback)
    assert steps == [0]
