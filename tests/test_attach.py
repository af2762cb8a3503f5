"""attach puts a backend on a stock pipeline and leaves no trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import Capabilities, MaskKind, Role, TokenLayout, attach
from fastvideo_core.errors import (
    AttachError,
    BackendNotUsedError,
    InputError,
    UnknownBackendError,
    UnsupportedModelError,
)
from tests.support.backends import Recorder, plugins_with
from tests.support.models import SIZE, build_wan_pipeline, build_wan_transformer, run

CALLS = 2 * SIZE["num_inference_steps"] * 2  # layers, steps, branches


class LoraLike(torch.nn.Module):
    """Wraps a linear layer as adapters do."""

    def __init__(self, base: torch.nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = torch.nn.Linear(base.in_features, 2, bias=False)
        self.up = torch.nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.base(x) + self.up(self.down(x))
        return result


def add_lora(pipe: Any) -> None:
    torch.manual_seed(3)
    for block in pipe.transformer.blocks:
        for attention in (block.attn1, block.attn2):
            attention.to_q, attention.to_v = LoraLike(attention.to_q), LoraLike(attention.to_v)


def snapshot(pipe: Any) -> dict[str, Any]:
    """All that attach could leave behind, in the pipeline and in diffusers; diffusers adds its own at a first run."""
    from diffusers.models import attention_dispatch as dispatch

    registry = dispatch._AttentionBackendRegistry
    return {
        "pipe": set(vars(pipe)),
        "modules": {
            name: (set(vars(m)), len(m._forward_pre_hooks), len(m._forward_hooks))
            for name, m in pipe.transformer.named_modules()
        },
        "processors": {name: (id(p), dict(vars(p))) for name, p in pipe.transformer.attn_processors.items()},
        "state": list(pipe.transformer.state_dict()),
        "registry": [dict(registry._backends), dict(registry._constraints), dict(registry._supported_arg_names)],
        "active": registry._active_backend,
        "names": list(dispatch.AttentionBackendName),
    }


def test_torch_sdpa_gives_the_bare_pipeline_s_frames_bit_for_bit(wan_pipeline: Any) -> None:
    bare = run(wan_pipeline)
    with attach(wan_pipeline, attention_backend="TORCH_SDPA") as fv:
        assert np.array_equal(run(wan_pipeline), bare)
        assert fv.receipt.attention["SELF"].calls == fv.receipt.attention["CROSS"].calls == CALLS


def test_everything_is_as_it_was_afterwards(wan_pipeline: Any) -> None:
    add_lora(wan_pipeline)
    bare, before = run(wan_pipeline), snapshot(wan_pipeline)
    with attach(wan_pipeline):
        assert snapshot(wan_pipeline) != before
        assert snapshot(wan_pipeline)["state"] == before["state"]
        assert np.array_equal(run(wan_pipeline), bare)
        assert np.array_equal(run(wan_pipeline), bare)
    assert snapshot(wan_pipeline) == before
    assert np.array_equal(run(wan_pipeline), bare)


def test_nested_with_another_pipeline_s(recorder: Recorder) -> None:
    one, other = build_wan_pipeline(), build_wan_pipeline(seed=1)
    add_lora(one)
    bare = run(one), run(other)
    before = snapshot(one), snapshot(other)
    with attach(one, attention_backend="RECORDER") as outer:
        with attach(other, attention_backend="TORCH_SDPA") as inner:
            frames = run(one), run(other)
            assert inner.receipt.attention["SELF"].backend == "TORCH_SDPA"
        assert outer.receipt.attention["SELF"].backend == "RECORDER"
        assert len(recorder.seen) == 2 * CALLS
        run(one)
        assert len(recorder.seen) == 4 * CALLS
    np.testing.assert_allclose(frames[0], bare[0], atol=1e-4)
    assert np.array_equal(frames[1], bare[1])
    assert (snapshot(one), snapshot(other)) == before


def test_detaching_in_any_order_leaves_nothing() -> None:
    one, other = build_wan_pipeline(), build_wan_pipeline(seed=1)
    run(one), run(other)
    before = snapshot(one), snapshot(other)
    first, second = attach(one), attach(other)
    first.detach()
    assert run(other).shape[0] == SIZE["num_frames"]
    second.detach()
    second.detach()
    assert (snapshot(one), snapshot(other)) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_left_by_an_exception_in_the_middle_of_a_run(wan_pipeline: Any, error: type[BaseException]) -> None:
    bare, before = run(wan_pipeline), snapshot(wan_pipeline)

    def stop(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            raise error
        return kwargs

    with pytest.raises(error), attach(wan_pipeline) as fv:  # noqa: PT012  # two runs in one attachment are the point
        with pytest.raises(error):
            run(wan_pipeline, callback_on_step_end=stop)
        with pytest.raises(AttachError, match="no receipt yet"):
            _ = fv.receipt
        assert np.array_equal(run(wan_pipeline), bare)
        assert fv.receipt.steps_computed == {"cond": 3, "uncond": 3}
        run(wan_pipeline, callback_on_step_end=stop)
    assert snapshot(wan_pipeline) == before
    assert np.array_equal(run(wan_pipeline), bare)


def test_a_backend_is_told_where_it_stands(wan_pipeline: Any, recorder: Recorder) -> None:
    with attach(wan_pipeline, attention_backend="recorder"):
        run(wan_pipeline)
        first = list(recorder.seen)
        recorder.seen.clear()
        run(wan_pipeline)
    layout = TokenLayout((3, 2, 3))
    assert first == recorder.seen
    assert first == [
        (role, branch, step, 3, layer, layout)
        for step in range(3)
        for branch in ("cond", "uncond")
        for layer in range(2)
        for role in (Role.SELF, Role.CROSS)
    ]


def test_both_transformers_of_wan_2_2_are_served(recorder: Recorder) -> None:
    pipe = build_wan_pipeline(experts=2)
    bare = run(pipe, num_inference_steps=6)
    with attach(pipe, attention_backend="RECORDER") as fv:
        frames = run(pipe, num_inference_steps=6)
    assert fv.receipt.attention["SELF"].calls == 2 * 6 * 2
    assert [seen[2] for seen in recorder.seen if seen[0] is Role.SELF and seen[1] == "cond"] == [
        step for step in range(6) for _ in range(2)
    ]
    np.testing.assert_allclose(frames, bare, atol=1e-4)


def test_without_guidance_there_is_one_branch(wan_pipeline: Any) -> None:
    with attach(wan_pipeline) as fv:
        run(wan_pipeline, guidance_scale=1.0)
        assert fv.receipt.steps_computed == {"cond": 3}


def test_the_receipt_is_complete_and_json(wan_pipeline: Any) -> None:
    import json

    with attach(wan_pipeline, attention_backend="torch_sdpa") as fv:
        run(wan_pipeline)
    receipt = json.loads(fv.receipt.to_json())
    assert receipt["requested_backend"] == "TORCH_SDPA"
    assert receipt["attention"]["SELF"]["reason"] == "requested by attention_backend="
    assert receipt["token_grid"] == [3, 2, 3]
    assert receipt["num_inference_steps"] == 3
    assert receipt["seconds"]["denoise"] > 0
    assert receipt["peak_memory_bytes"] > 1e6
    assert receipt["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert {"python", "torch", "diffusers", "transformers", "fastvideo-core"} <= set(receipt["versions"])


def test_the_variable_chooses_and_the_argument_comes_first(
    wan_pipeline: Any, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTVIDEO_ATTENTION_BACKEND", "Recorder")
    with attach(wan_pipeline) as fv:
        run(wan_pipeline)
        assert fv.receipt.attention["SELF"].reason == "requested by FASTVIDEO_ATTENTION_BACKEND"
    with attach(wan_pipeline, attention_backend="TORCH_SDPA") as fv:
        run(wan_pipeline)
        assert fv.receipt.attention["SELF"].backend == "TORCH_SDPA"


def test_a_backend_of_the_user_s_own_choice_in_diffusers_is_given_back(wan_pipeline: Any) -> None:
    wan_pipeline.transformer.set_attention_backend("_native_math")
    run(wan_pipeline)
    before = snapshot(wan_pipeline)
    try:
        with attach(wan_pipeline, attention_backend="TORCH_SDPA") as fv:
            run(wan_pipeline)
            assert fv.receipt.attention["SELF"].calls == CALLS
        assert snapshot(wan_pipeline) == before
    finally:
        from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

        _AttentionBackendRegistry.set_active_backend(AttentionBackendName.NATIVE)


def test_a_backend_may_be_an_object(wan_pipeline: Any) -> None:
    backend = Recorder("TORCH_SDPA")
    with attach(wan_pipeline, attention_backend=backend) as fv:
        run(wan_pipeline)
        served = fv.receipt.attention["SELF"]
    assert len(backend.seen) == 2 * CALLS
    assert (served.backend, served.kernel, served.distribution) == ("TORCH_SDPA", "recorder", "an object")
    for wrong in (5, True, b"", Recorder):
        with pytest.raises(InputError, match="attention_backend= takes a backend's name or object, not"):
            attach(wan_pipeline, attention_backend=wrong)  # type: ignore[arg-type]  # what is tried


def test_attaching_twice_is_an_error(wan_pipeline: Any) -> None:
    with attach(wan_pipeline), pytest.raises(AttachError, match="this WanPipeline is attached already; detach it"):
        attach(wan_pipeline)
    with attach(wan_pipeline):
        pass


def test_a_failed_attach_changes_nothing(wan_pipeline: Any) -> None:
    attention = wan_pipeline.transformer.blocks[1].attn2
    good = attention.processor
    before = snapshot(wan_pipeline)
    with pytest.raises(UnknownBackendError):
        attach(wan_pipeline, attention_backend="NO_SUCH")
    assert snapshot(wan_pipeline) == before
    attention.processor = object()
    with pytest.raises(AttachError, match="object does not go through diffusers' attention dispatch"):
        attach(wan_pipeline)
    attention.processor = good
    assert snapshot(wan_pipeline) == before


def test_one_processor_for_two_roles_is_an_error(wan_pipeline: Any) -> None:
    block = wan_pipeline.transformer.blocks[0]
    block.attn2.processor = block.attn1.processor
    with pytest.raises(AttachError, match="serves both SELF and CROSS"):
        attach(wan_pipeline)


def test_attention_that_bypasses_the_backend_is_noticed(wan_pipeline: Any) -> None:
    from diffusers.models.transformers.transformer_wan import WanAttnProcessor

    with attach(wan_pipeline, attention_backend="TORCH_SDPA"):
        for block in wan_pipeline.transformer.blocks:
            block.attn1.set_processor(WanAttnProcessor())
        with pytest.raises(BackendNotUsedError, match=r"blocks.0.attn1 of transformer has another attention processor"):
            run(wan_pipeline)


def test_a_transformer_put_in_later_is_noticed(wan_pipeline: Any) -> None:
    with attach(wan_pipeline, attention_backend="TORCH_SDPA"):
        wan_pipeline.transformer = build_wan_transformer()
        with pytest.raises(BackendNotUsedError, match="transformer of the WanPipeline is another"):
            run(wan_pipeline)


def test_a_pipeline_that_is_not_supported_is_named() -> None:
    with pytest.raises(
        UnsupportedModelError,
        match=r"this dict has no transformer; it has no models; installed plugins know .*CogVideoXTransformer3DModel, ",
    ):
        attach({})


def test_capabilities_default_to_no_masks() -> None:
    assert Capabilities(roles=frozenset(Role), lossless=False).masks == {MaskKind.NONE}


def test_the_receipt_tells_of_the_fallback(wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Recorder("GPU_ATTN", devices=frozenset({"cuda"}))
    monkeypatch.setattr("fastvideo_core.engine.attachment.load_plugins", lambda: plugins_with(backend))
    monkeypatch.setenv("FASTVIDEO_ATTENTION_FALLBACK", "torch-sdpa")
    with attach(wan_pipeline, attention_backend="GPU_ATTN") as fv:
        run(wan_pipeline)
        served = fv.receipt.attention["SELF"]
    assert fv.requested == "GPU_ATTN"
    assert (served.backend, served.calls, served.fallback) == ("TORCH_SDPA", CALLS, None)
    assert served.reason.startswith("FASTVIDEO_ATTENTION_FALLBACK, because GPU_ATTN")


def test_the_receipt_tells_of_calls_that_only_the_fallback_took(
    wan_pipeline: Any, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTVIDEO_ATTENTION_FALLBACK", "TORCH_SDPA")
    with attach(wan_pipeline, attention_backend="RECORDER") as fv:
        mask_cross_attention(wan_pipeline)
        run(wan_pipeline)
        served = fv.receipt.attention
    assert (served["SELF"].calls, served["SELF"].fallback) == (CALLS, None)
    assert served["CROSS"].calls == 0
    assert served["CROSS"].fallback is not None
    assert (served["CROSS"].fallback.backend, served["CROSS"].fallback.calls) == ("TORCH_SDPA", CALLS)
    assert (
        "RECORDER cannot serve CROSS attention: the model passes an ARBITRARY mask" in served["CROSS"].fallback.reason
    )


def mask_cross_attention(pipe: Any) -> None:
    """As a pipeline of one's own may: every other word is hidden."""
    mask = torch.arange(512) % 2 == 0
    for block in pipe.transformer.blocks:
        block.attn2.register_forward_pre_hook(lambda module, args: (*args[:2], mask, *args[3:]))
