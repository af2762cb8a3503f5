"""What SLIDING_TILE_ATTN has worked out once it has at hand, however many windows and patterns of heads there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fv_sta import sparse
from fv_sta.search import candidates
from fv_sta.sparse import Sparse, cost_of, lists_per_head, real_places
from fv_sta.strategy import Table
from fv_sta.tiles import Tiling
from fv_sta.windows import block_lists
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


def test_a_search_counts_the_work_of_a_window_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of HunyuanVideo's and of Wan 720p's canvas: an entry is asked for again after 70 others."""
    counted: list[Any] = []
    monkeypatch.setattr(sparse, "block_lists", lambda *args: counted.append(args) or block_lists(*args))  # type: ignore[func-returns-value]
    for grid, text in (((5, 6, 10), (256, 17)), ((4, 6, 10), (0, 0))):
        tiling = Tiling(grid, (1, 1, 1))
        windows = candidates(tiling.tiles)
        assert len(windows) > 64
        sweeps = [[cost_of(tiling, window, *text) for window in windows] for _ in range(2)]
        assert sweeps[0] == sweeps[1]
        assert len(counted) == len(windows)
        counted.clear()


class NothingNew(TorchFunctionMode):
    """No tensor is made of Python's numbers, and none is brought to a device."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.tensor, torch.as_tensor, torch.from_numpy, torch.Tensor.to), "made or copied anew"
        return func(*args, **kwargs or {})


def test_patterns_of_heads_are_brought_to_the_device_once() -> None:
    """As many as the published file has: 35 sparse steps of 60 layers, each with windows of its own for 24 heads."""
    choices = np.array([(1, 1, 1), (1, 2, 1), (2, 1, 1), (1, 1, 2), (2, 2, 1), (1, 2, 2)], dtype=np.int32)
    table = Table(choices[np.random.default_rng(0).integers(0, 6, (35, 60, 24))])
    tiling, device = Tiling((2, 16, 16), (1, 8, 8)), torch.device("cpu")

    def all_of_a_run() -> float:
        total = 0
        for step in range(35):
            for layer in range(60):
                windows = table.windows(step, layer, 35, 24)
                assert windows is not None
                total += int(lists_per_head(Sparse(tiling, windows, 0, 0, None), device)[0].sum())
        return total

    first = all_of_a_run()
    with NothingNew():
        assert all_of_a_run() == first


class CopiesToADevice(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Counts them, to one that has no memory."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._to_copy.default and torch.device("meta") == (kwargs or {}).get("device")
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("text", [0, 130])
def test_a_run_copies_each_window_and_each_pattern_to_the_device_once(text: int) -> None:
    """Two lists and their counts for each of 6 windows, and again for text, which sees everything; a row a pattern."""
    choices = np.array([(1, 1, 1), (1, 2, 1), (2, 1, 1), (1, 1, 2), (2, 2, 1), (1, 2, 2)], dtype=np.int32)
    patterns = choices[np.random.default_rng(100 + text).integers(0, 6, (7, 1, 24))]
    table = Table(np.tile(patterns, (1, 3, 1, 1)))
    tiling, device = Tiling((2, 16, 16), (1, 8, 8)), torch.device("meta")
    counts = []
    for _ in range(2):
        with CopiesToADevice() as copies:  # type: ignore[no-untyped-call]
            for step in range(7):
                for layer in range(3):
                    windows = table.windows(step, layer, 7, 24)
                    assert windows is not None
                    lists_per_head(Sparse(tiling, windows, text, text, None), device)
                    real_places(tiling, text, device)
        counts.append(copies.count)
    assert counts == [4 * len(choices) + 4 + 7 + 1, 0]
