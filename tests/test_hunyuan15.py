"""HunyuanVideo-1.5: no mask of tokens x tokens is made in a run, whatever else it does is what diffusers does."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastvideo_core import attach
from fastvideo_core.errors import BackendNotUsedError, DiffusersVersionError
from fastvideo_core.testing.fixed import counting
from tests.support.backends import Recorder
from tests.support.models_hunyuan import TEXT, TWO_TEXTS, build_hunyuan15_pipeline, hunyuan15_latents
from tests.support.policies import Scripted

LARGE: dict[str, Any] = {"height": 256, "width": 256, "num_frames": 13, "num_inference_steps": 1}
"""4 x 16 x 16 tokens of video, 16 of text."""
SQUARE = (1024 + 16) ** 2


@pytest.fixture
def pipe() -> Any:
    built = build_hunyuan15_pipeline()
    built.set_progress_bar_config(disable=True)
    return built


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """The most numbers that any operator has put into one tensor, other than weights."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights, self.numbers = weights, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() not in self.weights:
                self.numbers = max(self.numbers, one.numel())
        return made


def largest(pipe: Any) -> int:
    seen = Largest({one.untyped_storage().data_ptr() for one in pipe.transformer.parameters()})
    with seen:
        hunyuan15_latents(pipe, **LARGE)
    return seen.numbers


def test_the_bare_model_makes_a_mask_of_tokens_by_tokens_and_a_run_makes_none(pipe: Any) -> None:
    assert largest(pipe) == SQUARE
    with attach(pipe, attention_backend="TORCH_SDPA"):
        assert largest(pipe) < SQUARE / 8
    assert largest(pipe) == SQUARE


def test_compiled_blocks_make_none(pipe: Any) -> None:
    graphs: list[torch.fx.GraphModule] = []
    bare = hunyuan15_latents(pipe, **LARGE)
    torch.compiler.reset()
    backend_of_torch = counting(graphs)
    for block in pipe.transformer.transformer_blocks:
        block.compile(fullgraph=True, backend=backend_of_torch)
    backend = Recorder()
    with attach(pipe, attention_backend=backend) as fv:
        compiled = hunyuan15_latents(pipe, **LARGE)
        assert [largest_in(graph) < SQUARE / 8 for graph in graphs] == [True]
        assert backend.masks == [(1024 + 6, None, None)] * 2 + [(1024 + 2, None, None)] * 2
        assert fv.receipt.compiled
        arguments = arguments_of_a_pass(pipe)
        with torch.no_grad():
            outside = pipe.transformer(**arguments)[0]
    torch.testing.assert_close(compiled, bare)
    torch.compiler.reset()
    with torch.no_grad():
        assert torch.equal(outside, pipe.transformer(**arguments)[0])
    torch.compiler.reset()


def largest_in(graph: torch.fx.GraphModule) -> int:
    values = (node.meta.get("example_value") for node in graph.graph.nodes)
    return max(one.numel() for one in tree_leaves(list(values)) if isinstance(one, torch.Tensor))


def arguments_of_a_pass(pipe: Any) -> dict[str, Any]:
    batch = len(TWO_TEXTS["prompt_embeds"])
    torch.manual_seed(1)
    return {
        "hidden_states": torch.randn(batch, 9, 3, 2, 3),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": TWO_TEXTS["prompt_embeds"],
        "encoder_attention_mask": TWO_TEXTS["prompt_embeds_mask"],
        "encoder_hidden_states_2": TWO_TEXTS["prompt_embeds_2"],
        "encoder_attention_mask_2": TWO_TEXTS["prompt_embeds_mask_2"],
        "image_embeds": torch.zeros(batch, 5, 12),
        "return_dict": False,
    }


def test_outside_of_runs_it_is_bare_diffusers(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    arguments, table, shapes = arguments_of_a_pass(pipe), _AttentionBackendRegistry._backends, list[Any]()
    name = AttentionBackendName._NATIVE_MATH
    was_set = table[name]

    def noted(**given: Any) -> torch.Tensor:
        shapes.append(tuple(given["attn_mask"].shape))
        result: torch.Tensor = was_set(**given)
        return result

    monkeypatch.setitem(table, name, noted)
    pipe.transformer.set_attention_backend("_native_math")
    with torch.no_grad():
        bare = pipe.transformer(**arguments)[0]
        with attach(pipe, attention_backend=Recorder()):
            assert torch.equal(pipe.transformer(**arguments)[0], bare)
        assert torch.equal(pipe.transformer(**arguments)[0], bare)
    assert shapes == [(2, 1, 34, 34)] * 6  # two layers in three passes, 18 tokens of video and 16 of text


@pytest.mark.parametrize(
    ("text", "lengths"), [(TEXT, [(6,), (2,)]), (TWO_TEXTS, [(6, 2), (2, 4)])], ids=["one", "two of other lengths"]
)
@pytest.mark.parametrize("backend", ["TORCH_SDPA", "a slice"])
def test_padding_is_cut(pipe: Any, text: dict[str, Any], lengths: list[tuple[int, ...]], backend: str) -> None:
    bare = hunyuan15_latents(pipe, **text)
    recorder = Recorder()
    with attach(pipe, attention_backend=recorder if backend == "a slice" else backend) as fv:
        ours = hunyuan15_latents(pipe, **text)
    torch.testing.assert_close(ours, bare, rtol=1e-5, atol=2e-6)
    assert fv.receipt.steps_computed == {"pred_cond": 3, "pred_uncond": 3}
    if backend == "a slice":
        assert [keys for keys, *_ in recorder.masks[: 2 * sum(map(len, lengths))]] == [
            18 + length for branch in lengths for _ in range(2) for length in branch
        ]


def test_an_image_is_text_that_is_not_padding(pipe: Any) -> None:
    arguments = {**arguments_of_a_pass(pipe), "image_embeds": torch.ones(2, 5, 12)}
    recorder = Recorder()
    with torch.no_grad(), attach(pipe, attention_backend=recorder) as fv:
        bare = pipe.transformer(**arguments)[0]
        with fv.run(num_steps=1) as step_done:
            ours = pipe.transformer(**arguments)[0]
            step_done()
    torch.testing.assert_close(ours, bare)
    assert [keys for keys, *_ in recorder.masks] == [18 + 5 + 6, 18 + 5 + 2] * 2


class Guided:
    """Guiders by how many predictions they make."""

    @staticmethod
    def of(number: int) -> Any:
        from diffusers import ClassifierFreeGuidance, SkipLayerGuidance
        from diffusers.hooks import LayerSkipConfig

        if number < 3:
            return ClassifierFreeGuidance(guidance_scale=3.0 if number == 2 else 1.0)
        feed_forward = LayerSkipConfig(indices=[1], fqn="transformer_blocks", skip_attention=False, skip_ff=True)
        return SkipLayerGuidance(
            guidance_scale=3.0,
            skip_layer_guidance_start=0.0,
            skip_layer_guidance_stop=0.7,
            skip_layer_config=feed_forward,
        )


@pytest.mark.parametrize(
    ("predictions", "branches"),
    [
        (1, {"pred_cond": 4}),
        (2, {"pred_cond": 4, "pred_uncond": 4}),
        (3, {"pred_cond": 4, "pred_uncond": 4, "pred_cond_skip": 1}),  # in step 1 alone
    ],
)
def test_a_guider_s_predictions_are_branches(pipe: Any, predictions: int, branches: dict[str, int]) -> None:
    pipe.guider = Guided.of(predictions)
    bare = hunyuan15_latents(pipe, num_inference_steps=4)
    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        torch.testing.assert_close(hunyuan15_latents(pipe, num_inference_steps=4), bare, rtol=1e-5, atol=2e-6)
    assert fv.receipt.steps_computed == branches
    with attach(pipe, attention_backend="TORCH_SDPA", cache=Scripted("CR")) as fv:
        hunyuan15_latents(pipe, num_inference_steps=4)
    assert fv.receipt.cache is not None
    assert fv.receipt.cache.schedule == {name: "CRRR"[:steps] for name, steps in branches.items()}


def test_a_processor_or_a_backend_that_is_put_on_later_is_found(pipe: Any) -> None:
    with attach(pipe):
        pipe.transformer.set_attention_backend("native")
        with pytest.raises(BackendNotUsedError, match="set processors and backends of diffusers first"):
            hunyuan15_latents(pipe)
    with attach(pipe):
        attention = pipe.transformer.transformer_blocks[1].attn
        attention.processor = type(attention.processor).__mro__[1]()
        with pytest.raises(BackendNotUsedError, match=r"transformer_blocks\.1\.attn of transformer has another"):
            hunyuan15_latents(pipe)


def test_copies_are_of_the_processor_that_was_there(pipe: Any) -> None:
    pipe.transformer.set_attention_backend("native")
    was = pipe.transformer.transformer_blocks[0].attn.processor
    with attach(pipe):
        attached = pipe.transformer.transformer_blocks[0].attn.processor
        assert attached is not was
        for copied in (copy.deepcopy(attached), pickle.loads(pickle.dumps(attached))):
            assert type(copied) is type(was)
            assert vars(copied) == vars(was)
    assert pipe.transformer.transformer_blocks[0].attn.processor is was


def test_a_processor_that_does_something_else_with_its_mask_is_refused(pipe: Any) -> None:
    from fastvideo_core.engine.attention.text_mask import TextMask

    mask = TextMask(torch.ones(1, 3))
    with pytest.raises(DiffusersVersionError, match="calls expand on its mask"):
        mask.expand(1, 1)
    with pytest.raises(DiffusersVersionError, match=r"calls .*cat"):
        torch.cat([mask, mask])  # type: ignore[list-item]  # it stands for a tensor
