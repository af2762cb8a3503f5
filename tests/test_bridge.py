"""What happens when diffusers is not what the core was written for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from fastvideo_core import attach
from fastvideo_core.errors import BackendMismatchError, DiffusersVersionError
from tests.support.models import run_to_latents as run


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("_AttentionBackendRegistry._backends", None),
        ("_AttentionBackendRegistry._constraints", []),
        ("dispatch_attention_fn", lambda query, key, value: None),
        ("AttentionBackendName", object),
    ],
)
def test_internals_of_another_form_name_the_versions_that_work(
    wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch, where: str, value: object
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(f"diffusers.models.attention_dispatch.{where}", value)
        with pytest.raises(DiffusersVersionError, match=r"works with diffusers 0.40 to 0.42: pip install 'diffusers"):
            attach(wan_pipeline)
    with attach(wan_pipeline):
        pass


@pytest.mark.parametrize("name", ["_AttentionBackendRegistry", "AttentionBackendName", "dispatch_attention_fn"])
def test_internals_that_are_gone(wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delattr(f"diffusers.models.attention_dispatch.{name}")
    with pytest.raises(DiffusersVersionError, match=rf"diffusers \S+ is not as expected: .*{name}"):
        attach(wan_pipeline)


@pytest.mark.parametrize("option", [{"is_causal": True}, {"dropout_p": 0.1}, {"parallel_config": object()}])
def test_what_the_core_does_not_serve_is_an_error(wan_pipeline: Any, option: dict[str, Any]) -> None:
    def call_otherwise(module: Any, args: Any) -> None:
        dispatch(wan_pipeline, torch.zeros(1, 3, 2, 16), **option)

    hook = wan_pipeline.transformer.blocks[0].attn1.register_forward_pre_hook(call_otherwise)
    with (
        attach(wan_pipeline),
        pytest.raises(BackendMismatchError, match=r"SELF attention was called with .* full attention"),
    ):
        run(wan_pipeline)
    hook.remove()


@pytest.mark.parametrize("option", [{}, {"is_causal": True}])
def test_attention_outside_of_a_pass_is_bare_diffusers(wan_pipeline: Any, option: dict[str, Any]) -> None:
    q = torch.randn(1, 5, 2, 16, generator=torch.Generator().manual_seed(0))
    heads_first = q.transpose(1, 2)
    expected = scaled_dot_product_attention(heads_first, heads_first, heads_first, **option).transpose(1, 2)
    with attach(wan_pipeline, attention_backend="TORCH_SDPA"):
        assert torch.equal(dispatch(wan_pipeline, q, **option), expected)


def dispatch(pipe: Any, q: torch.Tensor, **options: Any) -> torch.Tensor:
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    key = pipe.transformer.blocks[0].attn1.processor._attention_backend
    result: torch.Tensor = dispatch_attention_fn(q, q, q, backend=key, **options)
    return result
