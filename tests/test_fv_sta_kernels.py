"""How SLIDING_TILE_ATTN calls the CUDA kernels, on stand-ins that have their signatures."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fv_sta.backend import SlidingTileAttention
from fv_sta.kernels import KERNELS, fa4
from fv_sta.sparse import Sparse
from fv_sta.tiles import Tiling, Triple
from fv_sta.windows import dense_mask

from fastvideo_core import KernelUsed
from fastvideo_core.testing.cases import Inputs, exact_attention, relative_error
from tests.support.kernels import (
    BLOCK_SPARSITY,
    CUTE,
    CUTLASS,
    FASTVIDEO_KERNEL,
    FLASH_4_SPARSE,
    FLASH_4_UTILS,
    ST_ATTN,
    Site,
    kernel_site,
    pretend_gpu,
)

FLEX = "torch.nn.attention.flex_attention.flex_attention"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    pretend_gpu(monkeypatch, (9, 0))
    fa4.dense.cache_clear()
    with kernel_site(tmp_path / "site", monkeypatch) as site:
        yield site
    fa4.dense.cache_clear()


def install_fa4(site: Site) -> None:
    site.install("flash-attn-4", "4.0.0b36", "flash_attn.cute", FLASH_4_SPARSE)
    (site.folder / "flash_attn" / "cute" / "block_sparsity.py").write_text(BLOCK_SPARSITY)
    (site.folder / "flash_attn" / "cute" / "utils.py").write_text(FLASH_4_UTILS)
    (site.folder / "cutlass").mkdir()
    (site.folder / "cutlass" / "__init__.py").write_text(CUTLASS)
    (site.folder / "cutlass" / "cute.py").write_text(CUTE)


def tensors(queries: int, keys: int, heads: int = 3, head_dim: int = 64) -> Inputs:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, count, heads, head_dim) for count in (queries, keys, keys))
    return Inputs(query, key, value, None)


FULL, RAGGED, WITH_WHOLE_BLOCKS = (
    Tiling((4, 16, 16), (2, 8, 8)),
    Tiling((5, 9, 13), (1, 8, 16)),
    Tiling((5, 9, 13), (4, 8, 8)),
)


@pytest.mark.parametrize(
    "windows", [((1, 1, 1),) * 3, ((1, 1, 1), (2, 2, 2), (1, 2, 1)), ((3, 1, 1), (5, 2, 1), (1, 2, 1))]
)
@pytest.mark.parametrize("text", [(0, 0), (40, 17), (256, 200)])
@pytest.mark.parametrize("tiling", [FULL, RAGGED, WITH_WHOLE_BLOCKS], ids=["full", "ragged", "whole and ragged"])
def test_fa4_gets_lists_and_a_mask_that_mean_the_windows(
    site: Site, tiling: Tiling, windows: tuple[Triple, ...], text: tuple[int, int]
) -> None:
    """In tile order; the last block of text is not whole, and counts as whole, as the kernel ends where the keys do."""
    install_fa4(site)
    inputs = tensors(tiling.places + text[0], tiling.places + text[1])
    sparse = Sparse(tiling, windows, *text, 0.2)
    assert KERNELS["fa4"].mismatch(sparse, 64, "bfloat16", "cuda") is None
    result = KERNELS["fa4"].load()(inputs.query, inputs.key, inputs.value, sparse)
    model_order = torch.cat((torch.from_numpy(tiling.scatter), torch.arange(tiling.places, inputs.query.shape[1])))
    keys = torch.cat((torch.from_numpy(tiling.scatter), torch.arange(tiling.places, inputs.key.shape[1])))
    again = Inputs(inputs.query[:, model_order], inputs.key[:, keys], inputs.value[:, keys], None)
    visible = torch.stack([torch.from_numpy(dense_mask(tiling, window, *text)) for window in windows])
    assert relative_error(result[:, model_order], exact_attention(again, 0.2, visible)) < 1e-5


def test_full_canvases_are_computed_without_a_mask(site: Site) -> None:
    install_fa4(site)
    sys.modules.pop("fv_sta.kernels.fa4_mask", None)
    inputs = tensors(FULL.places, FULL.places)
    KERNELS["fa4"].load()(inputs.query, inputs.key, inputs.value, Sparse(FULL, ((1, 1, 1),) * 3, 0, 0, None))
    assert "fv_sta.kernels.fa4_mask" not in sys.modules


def test_kernels_are_chosen_in_order(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what was measured; what has not been measured is for those who name it."""
    assert list(KERNELS) == ["fa4", "st_attn", "flex", "fastvideo_kernel"]
    site.install("fastvideo-kernel", "0.3.5", "fastvideo_kernel", FASTVIDEO_KERNEL)
    assert SlidingTileAttention().probe().kernel.endswith("flex_attention")
    monkeypatch.setenv("FASTVIDEO_STA_KERNEL", "fastvideo_kernel")
    assert SlidingTileAttention().probe().kernel == "fastvideo_kernel.sliding_tile_attention"
    monkeypatch.delenv("FASTVIDEO_STA_KERNEL")
    site.install("st_attn", "0.0.6", "st_attn", ST_ATTN)
    assert SlidingTileAttention().probe().kernel == "st_attn.sliding_tile_attention"
    monkeypatch.setenv("FASTVIDEO_STA_KERNEL", "flex")
    assert SlidingTileAttention().probe().kernel.endswith("flex_attention")
    monkeypatch.delenv("FASTVIDEO_STA_KERNEL")
    install_fa4(site)
    assert SlidingTileAttention().probe().kernel == "flash_attn.cute.flash_attn_func"


def test_each_gpu_has_its_own_kernels(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, (9, 0), (8, 0))
    install_fa4(site)
    backend = SlidingTileAttention()
    for device, kernel in (("cuda:0", "flash_attn.cute.flash_attn_func"), ("cuda:1", FLEX)) * 2:
        backend.device = device
        assert backend.probe().kernel == kernel


@pytest.mark.parametrize(
    ("capability", "fa4", "st_attn"),
    [
        ((8, 0), False, False),
        ((9, 0), True, True),
        ((10, 0), True, False),
        ((11, 0), True, False),
        ((12, 0), False, False),
    ],
)
def test_which_gpu_has_which_kernel(
    site: Site, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], fa4: bool, st_attn: bool
) -> None:
    pretend_gpu(monkeypatch, (7, 5), capability)
    install_fa4(site)
    site.install("st_attn", "0.0.6", "st_attn", ST_ATTN)
    assert KERNELS["fa4"].probe("cuda:1").available == fa4
    assert KERNELS["st_attn"].probe("cuda:1").available == st_attn
    assert KERNELS["flex"].probe("cuda:1").available


def test_flex_needs_a_compiler_on_a_cpu_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert KERNELS["flex"].probe("cuda:0").available
    assert "needs a C++ compiler on a CPU" in KERNELS["flex"].probe("cpu").reason
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "needs a C++ compiler on a CPU" in KERNELS["flex"].probe("cuda").reason


@pytest.mark.parametrize(
    ("device", "dtype", "head_dim", "there"),
    [
        ("cuda:0", "bfloat16", 8, True),
        ("cuda:0", "float16", 64, True),
        ("cuda:0", "bfloat16", 128, True),
        ("cuda:0", "bfloat16", 136, False),
        ("cuda:0", "bfloat16", 4, False),
        ("cuda:0", "bfloat16", 68, False),
        ("cuda:0", "float32", 128, False),
        ("cuda:1", "bfloat16", 128, False),
        ("cpu", "bfloat16", 128, False),
    ],
)
def test_dense_calls_are_flash_attention_4_s_where_it_fits(
    site: Site, monkeypatch: pytest.MonkeyPatch, device: str, dtype: str, head_dim: int, there: bool
) -> None:
    pretend_gpu(monkeypatch, (9, 0), (8, 0))
    install_fa4(site)
    found = fa4.dense(device, dtype, head_dim)
    assert (found is not None) == there
    if found:
        attend, used = found
        assert used == KernelUsed("flash_attn.cute.flash_attn_func", "4.0.0b36")
        inputs = tensors(7, 5)
        expected = exact_attention(inputs, 0.3)
        assert relative_error(attend(inputs.query, inputs.key, inputs.value, 0.3), expected) < 1e-5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("fa4", "FlashAttention 4 (block-sparse) is not installed (flash-attn-4); FASTVIDEO_STA_KERNEL asks for it"),
        ("st_attn", "st_attn is not installed (st-attn); FASTVIDEO_STA_KERNEL asks for it"),
    ],
)
def test_a_kernel_that_was_asked_for_and_is_not_installed(
    site: Site, monkeypatch: pytest.MonkeyPatch, setting: str, message: str
) -> None:
    monkeypatch.setenv("FASTVIDEO_STA_KERNEL", setting)
    probe = SlidingTileAttention().probe()
    assert (probe.available, probe.broken, probe.reason) == (False, False, message)
    assert probe.remedy.endswith(", or unset FASTVIDEO_STA_KERNEL")


PUBLISHED = {
    "st_attn": ("st_attn", "0.0.6", "st_attn", ST_ATTN),
    "fastvideo_kernel": ("fastvideo-kernel", "0.3.5", "fastvideo_kernel", FASTVIDEO_KERNEL),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_kernels_get_the_canvas_and_real_text_only(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    site.install(*PUBLISHED[name])
    tiling, text = Tiling((30, 48, 80), (6, 8, 8)), (9, 4)
    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", lambda q, k, v: q + v)
    inputs = tensors(tiling.places + text[0], tiling.places + text[1], heads=2, head_dim=8)
    windows: tuple[Triple, ...] = ((3, 3, 3), (5, 6, 1))
    result = KERNELS[name].load()(inputs.query, inputs.key, inputs.value, Sparse(tiling, windows, *text, None))
    module: Any = sys.modules[name]
    assert module.calls == [([[3, 3, 3], [5, 6, 1]], 4, True, "30x48x80")]
    assert result.shape == inputs.query.shape
    torch.testing.assert_close(result[:, :-5], inputs.query[:, :-5] + inputs.value)
    assert not result[:, -5:].any(), "text that is not real gets zeros"
    scaled = KERNELS[name].load()(inputs.query, inputs.key, inputs.value, Sparse(tiling, windows, *text, 0.7))
    torch.testing.assert_close(scaled[:, :-5], inputs.query[:, :-5] * 0.7 * math.sqrt(8) + inputs.value)


@pytest.mark.parametrize(
    ("version", "source", "broken", "message"),
    [
        ("0.0.4", ST_ATTN, False, "st_attn 0.0.4 is installed; 0.0.6 is the version whose faults are known"),
        ("0.0.6", ST_ATTN.replace("object()", "None"), True, "but its CUDA extension did not load"),
        (
            "0.0.7",
            "raise ImportError('undefined symbol: _ZN2at')",
            True,
            "undefined symbol: _ZN2at. It was compiled for",
        ),
    ],
)
def test_known_faults_of_st_attn(site: Site, version: str, source: str, broken: bool, message: str) -> None:
    site.install("st_attn", version, "st_attn", source)
    probe = KERNELS["st_attn"].probe()
    assert (probe.available, probe.broken) == (False, broken)
    assert message in probe.reason


def test_another_fastvideo_kernel_may_have_other_windows(site: Site) -> None:
    site.install("fastvideo-kernel", "0.3.6", "fastvideo_kernel", FASTVIDEO_KERNEL)
    probe = KERNELS["fastvideo_kernel"].probe()
    assert (probe.available, probe.remedy) == (False, "Install it: pip install fastvideo-kernel==0.3.5")
    assert "fastvideo-kernel 0.3.6 is installed; 0.3.5 is the version whose windows are known" in probe.reason


@pytest.mark.parametrize("name", PUBLISHED)
def test_one_window_came_with_the_successor(name: str) -> None:
    sparse = Sparse(Tiling((30, 48, 80), (6, 8, 8)), ((3, 6, 10), (5, 1, 10)), 9, 9, None)
    problem = KERNELS[name].mismatch(sparse, 128, "bfloat16", "cuda")
    assert problem == (
        None if name == "fastvideo_kernel" else f"{name} does not compute the windows [(3, 6, 10)] on this canvas"
    )
