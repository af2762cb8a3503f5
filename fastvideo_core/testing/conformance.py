"""What `pytest --fv-backend NAME` collects."""

from __future__ import annotations

from fastvideo_core.testing import pytest_plugin
from fastvideo_core.testing.attention import AttentionBackendSuite


class TestBackend(AttentionBackendSuite):
    """The suite on the named backend."""

    backend = pytest_plugin.named_backend
