"""Suites of tests that a plugin's author subclasses, and that `pytest --fv-backend NAME` runs on any installed backend.

They need pytest, which fastvideo-core does not depend on. The suites are imported when they are asked for: pytest
imports this package at every start, for its option.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvideo_core.testing.attention import AttentionBackendSuite
    from fastvideo_core.testing.branches import latents, small_pipeline
    from fastvideo_core.testing.caching import CachePolicySuite
    from fastvideo_core.testing.cases import Case, Inputs
    from fastvideo_core.testing.family import ModelFamilySuite
    from fastvideo_core.testing.subject import AttentionPass, probe_backend

_HOMES = {
    "AttentionBackendSuite": "attention",
    "AttentionPass": "subject",
    "CachePolicySuite": "caching",
    "Case": "cases",
    "Inputs": "cases",
    "ModelFamilySuite": "family",
    "latents": "branches",
    "probe_backend": "subject",
    "small_pipeline": "branches",
}

__all__ = [
    "AttentionBackendSuite",
    "AttentionPass",
    "CachePolicySuite",
    "Case",
    "Inputs",
    "ModelFamilySuite",
    "latents",
    "probe_backend",
    "small_pipeline",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
