"""SLIDING_TILE_ATTN on a CUDA device: what each kernel computes, and lists that wait for nothing."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from fv_sta.default import default_for
from fv_sta.kernels import KERNELS, fastvideo_kernel, st_attn
from fv_sta.sparse import Sparse, lists_per_head
from fv_sta.strategy import Table
from fv_sta.tiles import Tiling, Triple, by

from fastvideo_core import attach
from tests.support.models import build_wan_pipeline, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]


PUBLISHED = [
    (name, canvas, window)
    for name, known in (("st_attn", st_attn.WINDOWS), ("fastvideo_kernel", fastvideo_kernel.WINDOWS))
    for canvas, windows in known.items()
    for window in sorted(windows)
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when it compiles
@pytest.mark.parametrize(("name", "canvas", "window"), PUBLISHED)
def test_the_published_kernels_compute_every_window_that_they_are_given(
    name: str, canvas: Triple, window: Triple
) -> None:
    """Whatever stood in the memory that they write to; each head with another window than the next."""
    probe = KERNELS[name].probe()
    if not probe.available:
        pytest.skip(probe.reason)
    text = 200 if canvas == (30, 48, 80) else 0
    sparse = Sparse(Tiling(canvas, (6, 8, 8)), (window, (3, 3, 3)), text, text, None)
    assert off_from_flex(name, sparse) < 0.005, "of bfloat16; a window that is missing is off by 0.1 and more"


RAGGED = [
    Tiling((21, 30, 52), (6, 8, 8)),
    Tiling((21, 30, 52), (16, 6, 4)),
    Tiling((21, 30, 52), default_for((21, 30, 52)).tile),
    Tiling((16, 22, 40), default_for((16, 22, 40)).tile),
    Tiling((5, 9, 13), (2, 8, 8)),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("text", [(0, 0), (200, 200), (256, 37), (512, 384)])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("tiling", RAGGED, ids=lambda tiling: f"{by(tiling.grid)}-in-{by(tiling.tile)}")
def test_fa4_serves_canvases_that_no_tile_divides(tiling: Tiling, head_dim: int, text: tuple[int, int]) -> None:
    """With text behind the video, of which some may be padding, and with a window for each head."""
    probe = KERNELS["fa4"].probe()
    if not probe.available:
        pytest.skip(probe.reason)
    time, height, width = (max(1, count - 1) for count in tiling.tiles)
    for windows in (((3, 3, 3), (3, 3, 3)), ((1, 1, 1), (time, height, width)), ((3, 1, 3), tiling.tiles)):
        sparse = Sparse(tiling, windows, *text, 0.11)
        assert KERNELS["fa4"].mismatch(sparse, head_dim, "bfloat16", "cuda") is None
        assert off_from_flex("fa4", sparse, head_dim) < 0.005, "3e-3 is bfloat16's; a missing mask is off by 0.1"


def off_from_flex(name: str, sparse: Sparse, head_dim: int = 128) -> float:
    """The largest relative error of a head, against FlexAttention."""
    torch.manual_seed(0)
    heads, places = len(sparse.windows), sparse.tiling.places
    counts = (places + sparse.text_queries, *(places + sparse.text_keys,) * 2)
    query, key, value = (torch.randn(1, n, heads, head_dim, dtype=torch.bfloat16, device="cuda") for n in counts)
    expected = KERNELS["flex"].load()(query, key, value, sparse).float()
    torch.full_like(torch.cat((query,) * 4), torch.nan)
    result = KERNELS[name].load()(query, key, value, sparse).float()
    seen = torch.cat((torch.from_numpy(sparse.tiling.scatter), torch.arange(places, places + sparse.text_keys)))
    norm = partial(torch.linalg.vector_norm, dim=(0, 1, 3))
    return float((norm((result - expected)[:, seen]) / norm(expected[:, seen])).max())


def test_a_second_run_copies_nothing_to_the_device_that_dense_attention_does_not() -> None:
    """Windows that differ per step, layer and head, in a model that is small enough to count in."""
    choices = np.array([(1, 1, 1), (1, 2, 1), (2, 1, 1)], dtype=np.int32)
    windows = Table(choices[np.random.default_rng(1).integers(0, 3, (3, 2, 2))])
    copies = {}
    for name, config in (("TORCH_SDPA", None), ("SLIDING_TILE_ATTN", {"file": windows, "tile": (2, 8, 8)})):
        pipe = build_wan_pipeline().to("cuda")
        with attach(pipe, attention_backend=name, attention_config=config):
            run(pipe, height=160, width=208)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                run(pipe, height=160, width=208)
        copies[name] = sum("Memcpy HtoD" in event.name for event in profile.events())
    assert copies["SLIDING_TILE_ATTN"] == copies["TORCH_SDPA"] > 0


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
