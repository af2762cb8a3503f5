"""TORCH_SDPA passes the suite that every plugin's backend is held to."""

from __future__ import annotations

from fastvideo_core.testing import AttentionBackendSuite


class TestTorchSDPA(AttentionBackendSuite):
    backend = "TORCH_SDPA"
