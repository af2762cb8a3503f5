"""While attached a model behaves as the one that it was: copies, slices, pickles, saved files, offload."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import attach
from tests.support.backends import Recorder
from tests.support.models import build_wan_transformer
from tests.support.models import run_to_latents as run
from tests.support.policies import PIPELINES, Scripted


def with_transformer(pipe: Any, transformer: Any) -> Any:
    other = type(pipe)(**{**pipe.components, "transformer": transformer})
    other.set_progress_bar_config(disable=True)
    return other


def processors(transformer: Any) -> list[tuple[type, Any]]:
    found = [module.processor for module in transformer.modules() if hasattr(module, "processor")]
    return [(type(one), getattr(one, "_attention_backend", None)) for one in found]


@pytest.mark.parametrize("kind", ["Wan 2.1", "HunyuanVideo", "LTX-Video", "CogVideoX", "Mochi"])
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copy_of_an_attached_transformer_is_bare(kind: str, how: str, recorder: Recorder) -> None:
    build, options = PIPELINES[kind]
    pipe = build()
    bare = run(pipe, **options)
    with attach(pipe, attention_backend="RECORDER", cache=Scripted("CR")):
        transformer = pipe.transformer
        made = copy.deepcopy(transformer) if how == "deepcopy" else pickle.loads(pickle.dumps(transformer))
        run(pipe, **options)
    seen = len(recorder.seen)
    assert made is not transformer
    assert not made._forward_pre_hooks
    assert not made._forward_hooks
    assert vars(made).keys() - {"_diffusers_hook"} == vars(transformer).keys() - {"_diffusers_hook"}
    assert type(next(made.children())) is type(next(transformer.children()))
    assert [type(module) for module in made.modules()] == [type(module) for module in transformer.modules()]
    assert processors(made) == processors(transformer)
    assert np.array_equal(run(with_transformer(pipe, made), **options), bare)
    assert len(recorder.seen) == seen


def test_a_copy_of_an_attached_pipeline_is_bare(wan_pipeline: Any, recorder: Recorder) -> None:
    bare = run(wan_pipeline)
    with attach(wan_pipeline, attention_backend="RECORDER"):
        made = copy.deepcopy(wan_pipeline)
        assert np.array_equal(run(made), bare)
        assert not recorder.seen
        run(wan_pipeline)
    with attach(made, attention_backend="RECORDER"):
        run(made)


def test_the_list_of_blocks_is_a_list_of_modules(wan_pipeline: Any) -> None:
    before = wan_pipeline.transformer.blocks
    with attach(wan_pipeline):
        blocks = wan_pipeline.transformer.blocks
        assert isinstance(blocks, torch.nn.ModuleList)
        assert repr(blocks) == repr(before)
        assert list(blocks) == list(before)
        assert (len(blocks), blocks[0], blocks[-1]) == (2, before[0], before[1])
        for part in (blocks[:1], blocks[::-1], copy.deepcopy(blocks), pickle.loads(pickle.dumps(blocks))):
            assert type(part) is torch.nn.ModuleList
        assert list(blocks[:1]) == [before[0]]
        assert list(blocks + blocks) == list(before) * 2
        assert list(reversed(list(blocks))) == list(before)[::-1]
        assert blocks.state_dict().keys() == before.state_dict().keys()
        run(wan_pipeline)
    assert wan_pipeline.transformer.blocks is before


def test_weights_are_loaded_and_saved_while_attached(wan_pipeline: Any, tmp_path: Path) -> None:
    other = build_wan_transformer()
    with attach(wan_pipeline, attention_backend="TORCH_SDPA"):
        wan_pipeline.transformer.load_state_dict(other.state_dict())
        wan_pipeline.transformer.save_pretrained(tmp_path / "saved")
        mine = run(wan_pipeline)
    assert np.array_equal(run(with_transformer(wan_pipeline, other)), mine)
    saved, given = type(other).from_pretrained(tmp_path / "saved").state_dict(), other.state_dict()
    assert saved.keys() == given.keys()
    assert all(torch.equal(saved[name], given[name]) for name in given)


@pytest.mark.parametrize("kind", ["Wan 2.1", "HunyuanVideo"])
@pytest.mark.parametrize("attached_first", [True, False])
@pytest.mark.parametrize("script", ["C", "CR"])
def test_blocks_are_offloaded_before_and_after_attaching(kind: str, attached_first: bool, script: str) -> None:
    def offload() -> None:
        pipe.transformer.enable_group_offload(torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1)

    build, options = PIPELINES[kind]
    pipe = build()
    with attach(pipe, attention_backend="TORCH_SDPA", cache=Scripted(script)):
        expected = run(pipe, **options)
    if not attached_first:
        offload()
    with attach(pipe, attention_backend="TORCH_SDPA", cache=Scripted(script)) as fv:
        if attached_first:
            offload()
        assert np.array_equal(run(pipe, **options), expected)
        assert sum(fv.receipt.steps_skipped.values()) == (0 if script == "C" else 2 * len(fv.receipt.steps_computed))
