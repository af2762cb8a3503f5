"""Suites of tests that a plugin's author subclasses, and that `pytest --fv-backend NAME` runs on any installed backend.

They need pytest, which fastvideo-core does not depend on. The suites are imported when they are asked for: pytest
imports this package at every start, for its option.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvideo_core.testing.attention import AttentionBackendSuite

__all__ = ["AttentionBackendSuite"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fastvideo_core.testing.attention import AttentionBackendSuite

    return AttentionBackendSuite
