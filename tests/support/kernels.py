"""Stand-ins for CUDA kernels: distributions with the names, modules and signatures of the real ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path

import pytest

FLASH_2 = """
from torch.nn.functional import scaled_dot_product_attention as sdpa

def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                    alibi_slopes=None, deterministic=False, return_attn_probs=False):
    assert dropout_p == 0.0 and not causal
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    return sdpa(*heads_first, scale=softmax_scale, enable_gqa=True).transpose(1, 2)
"""
FLASH_3 = """
from torch.nn.functional import scaled_dot_product_attention as sdpa

def flash_attn_func(q, k, v, softmax_scale=None, causal=False, qv=None, return_attn_probs=False):
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    return sdpa(*heads_first, scale=softmax_scale, enable_gqa=True).transpose(1, 2), None
"""
FLASH_4 = """
from torch.nn.functional import scaled_dot_product_attention as sdpa

def flash_attn_func(q, k, v, qv=None, gather_kv_indices=None, softmax_scale=None, causal=False, return_lse=False):
    assert qv is None and gather_kv_indices is None
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    return sdpa(*heads_first, scale=softmax_scale, enable_gqa=True).transpose(1, 2), None
"""
SAGE = """
from torch.nn.functional import scaled_dot_product_attention as sdpa

def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, smooth_k=True, **kwargs):
    assert not kwargs, "they would be swallowed"
    assert tensor_layout == "NHD" and q.stride(-1) == 1
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    return sdpa(*heads_first, scale=sm_scale).transpose(1, 2)
"""
SAGE_3 = """
from torch.nn.functional import scaled_dot_product_attention as sdpa

def sageattn3_blackwell(q, k, v, attn_mask=None, is_causal=False, per_block_mean=True, single_level_p_quant=True):
    return sdpa(q, k, v)
"""
BROKEN = "raise ImportError('flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda29c10_cuda_check_implementation')"

_PACKAGES = ("flash_attn", "flash_attn_3", "flash_attn_interface", "sageattention", "sageattn3")


class Site:
    """A folder on the path that kernels are installed into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, distribution: str, version: str, module: str, source: str) -> None:
        metadata = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        package = self.folder.joinpath(*module.split("."))
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(source)
        invalidate_caches()

    def install_flash(self, *versions: str) -> None:
        known = {
            "2": ("flash-attn", "2.8.3", "flash_attn", FLASH_2),
            "3": ("flash-attn-3", "3.0.0", "flash_attn_3.flash_attn_interface", FLASH_3),
            "4": ("flash-attn-4", "4.0.0b36", "flash_attn.cute", FLASH_4),
        }
        for version in versions:
            self.install(*known[version])


@contextmanager
def kernel_site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site on the path; its modules are forgotten afterwards."""
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    _forget()
    try:
        yield Site(folder)
    finally:
        _forget()


def _forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in _PACKAGES]:
        del sys.modules[name]


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    """What torch says of the GPU, for what is decided before any kernel runs."""
    names = {7: "Tesla T4", 8: "NVIDIA A100", 9: "NVIDIA H100", 10: "NVIDIA B200", 12: "NVIDIA RTX 5090"}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device=None: capability)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device=None: names[capability[0]])
