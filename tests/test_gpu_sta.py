"""SLIDING_TILE_ATTN on a CUDA device: the windows of the published kernel, and lists that wait for nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fv_sta.kernels import KERNELS
from fv_sta.kernels.st_attn import WINDOWS
from fv_sta.sparse import Sparse, lists_per_head
from fv_sta.strategy import Table
from fv_sta.tiles import Tiling, Triple

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when it compiles
@pytest.mark.parametrize(
    ("canvas", "window"), [(canvas, window) for canvas, windows in WINDOWS.items() for window in sorted(windows)]
)
def test_the_published_kernel_computes_every_window_that_it_is_given(canvas: Triple, window: Triple) -> None:
    """Whatever stood in the memory that it writes to; each head with another window than the next."""
    probe = KERNELS["st_attn"].probe()
    if not probe.available:
        pytest.skip(probe.reason)
    tiling, text = Tiling(canvas, (6, 8, 8)), 200 if canvas == (30, 48, 80) else 0
    sparse = Sparse(tiling, (window, (3, 3, 3)), text, text, None)
    torch.manual_seed(0)
    tokens = tiling.places + text
    query, key, value = (torch.randn(1, tokens, 2, 128, dtype=torch.bfloat16, device="cuda") for _ in range(3))
    expected = KERNELS["flex"].load()(query, key, value, sparse).float()
    torch.full_like(torch.cat((query,) * 4), torch.nan)
    result = KERNELS["st_attn"].load()(query, key, value, sparse).float()
    for head in range(2):
        error = (result[:, :, head] - expected[:, :, head]).norm() / expected[:, :, head].norm()
        assert error < 0.005, "of bfloat16; a window that is missing is off by 0.1 and more"


def test_patterns_of_heads_that_are_new_do_not_wait_for_the_gpu() -> None:
    choices = np.array([(1, 1, 1), (1, 2, 1), (2, 1, 1), (1, 1, 2), (2, 2, 1), (1, 2, 2)], dtype=np.int32)
    table = Table(choices[np.random.default_rng(1).integers(0, 6, (1, 300, 24))])
    tiling, device = Tiling((2, 16, 16), (1, 8, 8)), torch.device("cuda")
    distinct = tuple(tuple(row) for row in choices.tolist())
    lists_per_head(Sparse(tiling, distinct, 0, 0, None), device)  # the lists of the windows themselves
    torch.cuda.set_sync_debug_mode("error")
    try:
        for layer in range(300):
            windows = table.windows(0, layer, 1, 24)
            assert windows is not None
            lists_per_head(Sparse(tiling, windows, 0, 0, None), device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
