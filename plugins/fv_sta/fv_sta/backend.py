"""SLIDING_TILE_ATTN: each tile of video tokens attends to the tiles in a window around it, and to all text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from fastvideo_core import (
    AttentionBackend,
    AttentionCall,
    AttentionFunction,
    Capabilities,
    Probe,
    Role,
    Run,
    TokenLayout,
    TokenOrder,
)
from fastvideo_core.errors import BackendMismatchError, InputError
from fv_sta.kernels import KERNELS, dense
from fv_sta.observer import OBSERVER
from fv_sta.settings import StaSettings
from fv_sta.sparse import Sparse, real_places, work_of
from fv_sta.strategy import Strategy, Table, Uniform, check_windows
from fv_sta.tiles import BLOCK, Tiling, Triple, by, tiling_for
from fv_sta.windows import describe, is_full

if TYPE_CHECKING:
    import torch

SparseFunction = Callable[..., "torch.Tensor"]

DEFAULT_WINDOW = (3, 3, 3)


class SlidingTileAttention(AttentionBackend):
    """Self attention and joint attention on any canvas; cross attention goes to the automatic backend."""

    name = "SLIDING_TILE_ATTN"
    settings_type = StaSettings
    main_setting = "file"
    variable_prefix = "FASTVIDEO_STA"
    capabilities = Capabilities(
        roles=frozenset({Role.SELF, Role.JOINT}),
        lossless=False,
        tolerance=0.02,
        head_dims=frozenset(range(16, 257, 8)),
        dtypes=frozenset({"float32", "bfloat16", "float16"}),
    )

    def __init__(self) -> None:
        self._tallies: Counter[str] = Counter()
        self._windows_used: Counter[str] = Counter()
        self._last_grid: Triple | None = None

    def probe(self) -> Probe:
        return self._chosen[1]

    def load(self) -> AttentionFunction:
        return self.attend

    def token_order(self, layout: TokenLayout, device: torch.device) -> TokenOrder | None:
        return _order(self.tiling(layout.grid), device) if self._orders_once else None

    def start_run(self, run: Run) -> None:
        self._tallies, self._windows_used = Counter(), Counter()
        tiling = self.tiling(run.layout.grid)
        if math.prod(tiling.tiles) == 1:
            raise InputError(
                f"the canvas of {by(tiling.grid)} tokens is not larger than one tile of {by(tiling.tile)}: sliding "
                f"tiles would be full attention; choose a smaller tile ({self.origin_of('tile')}), a larger video, or "
                "TORCH_SDPA"
            )
        if OBSERVER.get() is not None:
            return
        if self._table is None and self.settings.window is None and is_full(DEFAULT_WINDOW, tiling.tiles):
            window, tile = self.origin_of("window"), self.origin_of("tile")
            raise InputError(
                f"the canvas of {by(tiling.grid)} tokens has {by(tiling.tiles)} tiles of {by(tiling.tile)}, which the "
                f"default window of {by(DEFAULT_WINDOW)} covers: that would be full attention; set {window} or a "
                f"smaller {tile}, choose a larger video, or TORCH_SDPA"
            )
        if self._table is not None:
            _check_table(self._table, run, tiling)
            windows = self._table.distinct()
        else:
            windows = [self._uniform(tiling).window]
            check_windows(windows, tiling.tiles, self.origin_of("window"))
        text = min(run.layout.text_after, *(run.layout.text_lengths or (run.layout.text_after,)))
        sparse = Sparse(tiling, tuple(windows), run.layout.text_after, text, None)
        if not all(is_full(window, tiling.tiles) for window in windows):
            self._kernel_for(sparse, run.head_dim, run.dtype, run.device)

    def run_details(self) -> dict[str, Any]:
        if self._last_grid is None or not self._tallies["calls"]:
            return {}
        tiling, tallies = self.tiling(self._last_grid), self._tallies
        return {
            "tile": list(tiling.tile),
            "tiles": list(tiling.tiles),
            "padding": tiling.places / tiling.tokens - 1,
            "windows": dict(self._windows_used.most_common(12)),
            "density": tallies["sparse work"] / tallies["sparse whole"] if tallies["sparse whole"] else 1.0,
            "work": tallies["work"] / tallies["whole"],
            "kernels": {name: tallies[name] for name in (*KERNELS, "dense") if tallies[name]},
            "token_order": "once per forward pass" if self._orders_once else "at each call",
            "config": self._table.source if self._table else None,
        }

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        observer = OBSERVER.get()
        if observer is not None and not observer.busy:
            return observer.observe(self, query, key, value, call)
        layout = call.layout
        if layout is None or layout.text_before:
            raise BackendMismatchError(f"{self.name} needs the token grid, with text behind the video; got {layout}")
        tiling = self.tiling(layout.grid)
        video = tiling.places if layout.ordered else tiling.tokens
        strategy = observer.strategy if observer is not None else self._strategy(tiling)
        windows = strategy.windows(call.step, call.layer, call.num_steps, query.shape[2])
        text = (query.shape[1] - video, key.shape[1] - video)
        if windows is None or all(is_full(window, tiling.tiles) for window in windows):
            self._count(tiling, "dense", (tiling.tiles,) * query.shape[2], text)
            if layout.ordered:
                key, value = (_without_padding(x, tiling, text[1]) for x in (key, value))
            return dense(query, key, value, call.scale)
        sparse = Sparse(tiling, windows, *text, call.scale)
        name, function = self._kernel_for(sparse, query.shape[-1], str(query.dtype)[6:], query.device.type)
        self._count(tiling, name, windows, text)
        if layout.ordered:
            return function(query, key, value, sparse)
        order = _order(tiling, query.device)
        ordered = (_reorder(x, order.gather, tiling.tokens) for x in (query, key, value))
        return _reorder(function(*ordered, sparse), order.scatter, tiling.places)

    def _count(self, tiling: Tiling, name: str, windows: tuple[Triple, ...], text: tuple[int, int]) -> None:
        """Keep what the receipt tells: pairs of tokens that are computed, and pairs that there are."""
        self._last_grid = tiling.grid
        whole = (tiling.tokens + text[0]) * (tiling.tokens + text[1]) * len(windows)
        work = whole
        if name != "dense":
            work = sum(work_of(tiling, window, *text) for window in windows) * BLOCK**2
            self._tallies.update({"sparse work": work, "sparse whole": whole})
        self._tallies.update({"calls": 1, name: 1, "work": work, "whole": whole})
        for window in dict.fromkeys(windows):
            self._windows_used[describe(window, tiling.tiles)] += windows.count(window)

    def _kernel_for(
        self, sparse: Sparse, head_dim: int, dtype: str, device: str
    ) -> tuple[str, Callable[..., torch.Tensor]]:
        """The first kernel that is there and fits.

        Raises:
            BackendMismatchError: none does, or the one that was asked for does not.
        """
        problems = []
        for name in self._chosen[0]:
            problem = KERNELS[name].mismatch(sparse, head_dim, dtype, device)
            if problem is None:
                return name, _loaded(name)
            problems.append(problem)
        asked = f" ({self.origin_of('kernel')}={self.settings.kernel})" if self.settings.kernel else ""
        raise BackendMismatchError(f"{self.name}{asked} cannot compute this: {'; '.join(problems)}")

    @cached_property
    def _chosen(self) -> tuple[tuple[str, ...], Probe]:
        """The kernels that can be used here, best first, and the answer to a probe."""
        asked = self.settings.kernel
        probes = {name: KERNELS[name].probe() for name in ((asked,) if asked else KERNELS)}
        usable = tuple(name for name, probe in probes.items() if probe.available)
        if usable:
            return usable, probes[usable[0]]
        if not asked:
            return (), probes["flex"]  # the one that should run anywhere
        probe, origin = probes[asked], self.origin_of("kernel")
        reason, remedy = f"{probe.reason}; {origin} asks for it", f"{probe.remedy}, or unset {origin}"
        return (), Probe(False, reason=reason, remedy=remedy, broken=probe.broken)

    def tiling(self, grid: Triple) -> Tiling:
        tile = self._table.tile if self._table and self._table.tile else self.settings.tile
        return tiling_for(grid, tile)

    def _strategy(self, tiling: Tiling) -> Strategy:
        return self._table if self._table is not None else self._uniform(tiling)

    def _uniform(self, tiling: Tiling) -> Uniform:
        """The window that was set; else 3 tiles along each axis, or all where there are fewer."""
        time, height, width = (min(size, count) for size, count in zip(DEFAULT_WINDOW, tiling.tiles, strict=True))
        return Uniform(self.settings.window or (time, height, width), self.settings.dense)

    @property
    def _table(self) -> Table | None:
        table: Table | None = self.settings.file
        return table

    @cached_property
    def _orders_once(self) -> bool:
        return bool(self.settings.order == "forward")


@lru_cache(maxsize=8)
def _loaded(name: str) -> SparseFunction:
    function: SparseFunction = KERNELS[name].load()
    return function


@lru_cache(maxsize=16)
def _order(tiling: Tiling, device: torch.device) -> TokenOrder:
    import torch

    return TokenOrder(torch.from_numpy(tiling.gather).to(device), torch.from_numpy(tiling.scatter).to(device))


@lru_cache(maxsize=16)
def _real_keys(tiling: Tiling, text: int, device: torch.device) -> torch.Tensor:
    return real_places(tiling, text, device).nonzero()[:, 0]


def _without_padding(tensor: torch.Tensor, tiling: Tiling, text: int) -> torch.Tensor:
    if tiling.places == tiling.tokens:
        return tensor
    return tensor.index_select(1, _real_keys(tiling, text, tensor.device))


def _reorder(tensor: torch.Tensor, index: torch.Tensor, video: int) -> torch.Tensor:
    """The video tokens by index, what is behind them as it is."""
    import torch

    ordered = tensor[:, :video].index_select(1, index)
    return ordered if tensor.shape[1] == video else torch.cat((ordered, tensor[:, video:]), dim=1)


def _check_table(table: Table, run: Run, tiling: Tiling) -> None:
    """Refuse a file that was made for something else, with both sides."""
    sides = {
        "model family": (table.family, run.family),
        "grid of tokens": (table.grid and by(table.grid), by(run.layout.grid)),
        "number of steps": (table.steps, run.num_steps),
        "number of layers": (table.layers, run.num_layers),
        "number of heads": (table.heads, run.num_heads),
    }
    wrong = [
        f"its {name} is {file}, this run's is {own}" for name, (file, own) in sides.items() if file not in (None, own)
    ]
    if wrong:
        raise InputError(f"the file of windows {table.source!r} does not fit: {'; '.join(wrong)}")
    check_windows(table.distinct(), tiling.tiles, f"the file of windows {table.source!r}")
