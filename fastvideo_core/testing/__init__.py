"""Suites of tests that a plugin's author subclasses, and that `pytest --fv-backend NAME` runs on any installed backend.

They need pytest, which fastvideo-core does not depend on.
"""

from __future__ import annotations

from fastvideo_core.testing.attention import AttentionBackendSuite

__all__ = ["AttentionBackendSuite"]
