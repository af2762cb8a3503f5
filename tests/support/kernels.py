"""Stand-ins for CUDA kernels: distributions with the names, modules and signatures of the real ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.installed import write_distribution

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

def flash_attn_func(q, k, v, softmax_scale=None, causal=False, qv=None):
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

def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, return_lse=False, **kwargs):
    assert not kwargs, "they would be swallowed"
    assert tensor_layout == "NHD" and q.stride(-1) == 1 and not return_lse
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    return sdpa(*heads_first, scale=sm_scale).transpose(1, 2)
"""
SAGE_1 = """
from torch.nn.functional import pad, scaled_dot_product_attention as sdpa

def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, smooth_k=True, **kwargs):
    assert not kwargs, "they would be swallowed"
    assert tensor_layout == "NHD" and q.stride(-1) == 1
    if smooth_k:
        k -= k.mean(dim=1, keepdim=True)
    missing = -k.shape[1] % 64
    k, v = (pad(x, (0, 0, 0, 0, 0, missing)) for x in (k, v))
    return sdpa(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), scale=sm_scale).transpose(1, 2)
"""
"""With the faults of 1.0.6: it writes to the keys, and padding of its last block has weight."""

SAGE_3 = """
from torch.nn.functional import scaled_dot_product_attention as sdpa

def sageattn3_blackwell(q, k, v, attn_mask=None, is_causal=False, per_block_mean=True, **kwargs):
    assert not kwargs, "they would be swallowed"
    k -= k.mean(dim=-2, keepdim=True)
    return sdpa(q, k, v)
"""
"""With its fault: it writes to the keys."""

FLASH_4_SPARSE = """
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

def flash_attn_func(q, k, v, qv=None, gather_kv_indices=None, softmax_scale=None, causal=False, mask_mod=None,
                    aux_tensors=None, block_sparse_tensors=None, return_lse=False):
    heads_first = [x.transpose(1, 2) for x in (q, k, v)]
    if block_sparse_tensors is None:
        return sdpa(*heads_first, scale=softmax_scale).transpose(1, 2), None
    lists = block_sparse_tensors
    assert lists.block_size == (128, 128)
    size = q.shape[1], k.shape[1]
    seen = in_blocks(lists.full_block_cnt, lists.full_block_idx, size)
    if mask_mod is None:
        assert not lists.mask_block_cnt.any(), "without a mask_mod such blocks would count as whole"
    else:
        assert all(tensor.dtype == torch.int32 for tensor in aux_tensors)
        allowed = mask_mod([None], [None], [None], [torch.arange(size[1])], None, aux_tensors)
        partial = in_blocks(lists.mask_block_cnt, lists.mask_block_idx, size)
        assert not (partial & seen).any(), "a block is listed once"
        seen = seen | (partial & allowed)
    return sdpa(*heads_first, attn_mask=seen, scale=softmax_scale).transpose(1, 2), None

def in_blocks(count, index, size):
    blocks = [-(-tokens // 128) for tokens in size]
    assert index.dtype == count.dtype == torch.int32
    assert index.shape[2:] == tuple(blocks) and count.shape == index.shape[:3]
    rows = (torch.arange(blocks[1]) < count[..., None])
    seen = torch.zeros(index.shape, dtype=torch.int32).scatter_add_(3, index.long(), rows.int()) > 0
    return seen.repeat_interleave(128, 2).repeat_interleave(128, 3)[:, :, : size[0], : size[1]]
"""
FLASH_4_UTILS = """
def scalar_to_ssa(value, dtype):
    return value
"""
CUTLASS = """
Int32 = int
"""
CUTE = """
TensorSSA = object

def jit(function):
    return function
"""
FASTVIDEO_KERNEL = """
from torch.nn.functional import scaled_dot_product_attention as sdpa

calls = []

def sliding_tile_attention(q, k, v, window_size, text_length, has_text=True, seq_shape="30x48x80"):
    assert q.shape == k.shape == v.shape and q.is_contiguous() and q.shape[1] == len(window_size)
    calls.append((window_size, text_length, has_text, seq_shape))
    return sdpa(q, k, v)
"""
KERNELS = """
import importlib.util
import os
from pathlib import Path

from huggingface_hub import constants

def get_kernel(repo_id, *, revision=None, version=None, backend=None, user_agent=None, trust_remote_code=False,
               check_arch=True):
    overrides = dict(entry.split("=", 1) for entry in os.environ.get("LOCAL_KERNELS", "").split(":") if entry)
    if repo_id in overrides:
        path = Path(overrides[repo_id]) / "build" / "__init__.py"
        spec = importlib.util.spec_from_file_location("a_kernel", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    if constants.HF_HUB_OFFLINE:
        raise ValueError(f"Version {version} of '{repo_id}' is not available in the local cache\\nand so on")
    raise OSError(f"fetching version={version} revision={revision} of {repo_id}, trusting {trust_remote_code}")
"""
"""Of the package kernels 0.17: local folders, and a hub that has nothing."""

BLOCK_SPARSITY = """
from typing import NamedTuple
import torch

class BlockSparseTensorsTorch(NamedTuple):
    mask_block_cnt: torch.Tensor
    mask_block_idx: torch.Tensor
    full_block_cnt: torch.Tensor = None
    full_block_idx: torch.Tensor = None
    cu_total_m_blocks: torch.Tensor = None
    cu_block_idx_offsets: torch.Tensor = None
    block_size: tuple = None
"""
ST_ATTN = """
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

calls = []
sta_fwd = object()

def sliding_tile_attention(q_all, k_all, v_all, window_size, text_length, has_text=True, dit_seq_shape='30x48x80'):
    assert q_all.shape == k_all.shape == v_all.shape and q_all.is_contiguous()
    assert q_all.shape[1] == len(window_size)
    calls.append((window_size, text_length, has_text, dit_seq_shape))
    return sdpa(q_all, k_all, v_all)
"""
BROKEN = "raise ImportError('flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda29c10_cuda_check_implementation')"

_PACKAGES = (
    "cutlass",
    "fastvideo_kernel",
    "flash_attn",
    "flash_attn_3",
    "flash_attn_interface",
    "kernels",
    "sageattention",
    "sageattn3",
    "st_attn",
)


class Site:
    """A folder on the path that kernels are installed into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, distribution: str, version: str, module: str, source: str) -> None:
        write_distribution(self.folder, distribution, version, module, source)

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
    """A site on the path; its modules are forgotten afterwards. Skips where a real kernel would be found beside."""
    if real := [name for name in _PACKAGES if find_spec(name)]:
        pytest.skip(f"stand-ins are for machines without {', '.join(real)}")
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


NAMES = {7: "Tesla T4", 8: "NVIDIA A100", 9: "NVIDIA H100", 10: "NVIDIA B200", 11: "Thor", 12: "NVIDIA RTX 5090"}


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> None:
    """What torch says of the GPUs, the first of which is the current one, for what is decided before a kernel runs."""

    def capability(device: Any = None) -> tuple[int, int]:
        return capabilities[torch.device(device or "cuda").index or 0]

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(capabilities))
    monkeypatch.setattr("torch.cuda.get_device_capability", capability)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device=None: NAMES[capability(device)[0]])
