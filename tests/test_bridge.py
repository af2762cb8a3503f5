"""What happens when diffusers is not what the core was written for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastvideo_core import attach
from fastvideo_core.errors import AttachError, BackendMismatchError, DiffusersVersionError


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
    with (
        attach(wan_pipeline),
        pytest.raises(BackendMismatchError, match=r"SELF attention was called with .* full attention"),
    ):
        dispatch(wan_pipeline, **option)


def test_attention_outside_of_a_forward_pass_is_an_error(wan_pipeline: Any) -> None:
    with attach(wan_pipeline), pytest.raises(AttachError, match="SELF attention was called outside of a forward pass"):
        dispatch(wan_pipeline)


def dispatch(pipe: Any, **options: Any) -> torch.Tensor:
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    key = pipe.transformer.blocks[0].attn1.processor._attention_backend
    q = torch.zeros(1, 3, 2, 16)
    result: torch.Tensor = dispatch_attention_fn(q, q, q, backend=key, **options)
    return result
