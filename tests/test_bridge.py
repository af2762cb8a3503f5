"""What happens when diffusers is not what the core was written for."""

from __future__ import annotations

from typing import Any

import pytest

from fastvideo_core import attach
from fastvideo_core.errors import DiffusersVersionError


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
