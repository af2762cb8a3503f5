"""SLIDING_TILE_ATTN: each tile of video tokens attends to the tiles in a window around it, and to all text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from fastvideo_core import (
    AttentionBackend,
    AttentionCall,
    AttentionFunction,
    Capabilities,
    KernelUsed,
    Probe,
    Role,
    Run,
    TokenLayout,
    TokenOrder,
)
from fastvideo_core.errors import BackendMismatchError, InputError
from fv_sta.default import DEFAULT_WINDOW, default_for
from fv_sta.kernels import KERNELS, dense
from fv_sta.observer import OBSERVER
from fv_sta.order import reorder, tile_order, without_padding
from fv_sta.settings import StaSettings
from fv_sta.sparse import Sparse, work_of
from fv_sta.strategy import Strategy, Table, Uniform, check_windows
from fv_sta.tiles import BLOCK, DEFAULT_TILE, Tiling, Triple, by, tiling_for
from fv_sta.windows import describe, is_full

if TYPE_CHECKING:
    import torch


class SlidingTileAttention(AttentionBackend):
    """Self attention and joint attention on any canvas; cross attention goes to the automatic backend."""

    name = "SLIDING_TILE_ATTN"
    settings_type = StaSettings
    main_setting = "file"
    variable_prefix = "FASTVIDEO_STA"
    overflows_in = frozenset({"float16", "bfloat16"})
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
        self._fixed = False
        self._found: dict[tuple[str, str | None], dict[str, Probe]] = {}

    def probe(self) -> Probe:
        """The first kernel that can be used; else the one that was asked for, or that should run anywhere."""
        usable = [probe for probe in self._probes.values() if probe.available]
        if usable:
            return usable[0]
        asked = self.settings.kernel
        if asked is None:
            return self._probes["flex"]
        probe, origin = self._probes[asked], self.origin_of("kernel")
        reason, remedy = f"{probe.reason}; {origin} asks for it", f"{probe.remedy}, or unset {origin}"
        return replace(probe, reason=reason, remedy=remedy)

    def load(self) -> AttentionFunction:
        return self.attend

    def token_order(self, layout: TokenLayout, device: torch.device) -> TokenOrder | None:
        return tile_order(self.tiling(layout.grid), device) if self._orders_once else None

    def check_grid(self, grid: Triple) -> None:
        tiling = self.tiling(grid)
        _check_tiles(tiling, self.origin_of("tile"))
        if OBSERVER.get() is not None:
            return
        if self._table is None:
            self._one_window(tiling)
        elif self._table.grid in (None, grid):
            check_windows(self._table.distinct(), tiling.tiles, f"the file of windows {self._table.source!r}")
        else:
            raise InputError(
                f"the file of windows {self._table.source!r} does not fit: its grid of tokens is "
                f"{by(self._table.grid)}, this run's is {by(grid)}"
            )

    def start_run(self, run: Run) -> None:
        self._tallies, self._windows_used = Counter(), Counter()
        self._fixed = run.layout.fixed
        layout, tiling = run.layout, self.tiling(run.layout.grid)
        if layout.text_before:
            raise BackendMismatchError(
                f"{self.name} takes text, or frames that condition the video, behind the video; {run.family} has "
                f"{layout.text_before} such tokens in front of it; choose another backend, such as FLASH_ATTN or "
                "TORCH_SDPA"
            )
        _check_tiles(tiling, self.origin_of("tile"))
        if OBSERVER.get() is not None:
            return
        windows = self._windows_for(run, tiling)
        text = min(layout.text_after, *(layout.text_lengths or (layout.text_after,)))
        if not all(is_full(window, tiling.tiles) for window in windows):
            sparse = Sparse(tiling, tuple(windows), layout.text_after, text, None)
            self._kernel_for(sparse, run.head_dim, run.dtype, run.device.partition(":")[0])

    def _windows_for(self, run: Run, tiling: Tiling) -> list[Triple]:
        """The windows of a run, checked against its canvas."""
        if self._table is not None:
            _check_table(self._table, run, tiling)
            return self._table.distinct()
        return self._one_window(tiling)

    def _one_window(self, tiling: Tiling) -> list[Triple]:
        """The one that is given, or the default, checked against the canvas."""
        used = self._uniform(tiling).window
        if self.settings.window is None and is_full(used, tiling.tiles):
            window, tile = self.origin_of("window"), self.origin_of("tile")
            raise InputError(
                f"the canvas of {by(tiling.grid)} tokens has {by(tiling.tiles)} tiles of {by(tiling.tile)}, which the "
                f"default window of {by(DEFAULT_WINDOW)} covers: that would be full attention; set {window} or a "
                f"smaller {tile}, choose a larger video, or TORCH_SDPA"
            )
        check_windows([used], tiling.tiles, self.origin_of("window"))
        return [used]

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
            "token_order": "once per forward pass" if self._orders_once and not self._fixed else "at each call",
            "config": self._table.source if self._table else None,
        }

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        layout = call.layout
        if layout is None or layout.text_before:
            raise BackendMismatchError(f"{self.name} needs the token grid, with text behind the video; got {layout}")
        tiling, heads = self.tiling(layout.grid), query.shape[2]
        video = tiling.places if layout.ordered else tiling.tokens
        text = (query.shape[1] - video, key.shape[1] - video)

        def with_windows(windows: tuple[Triple, ...]) -> torch.Tensor:
            return self._attend(query, key, value, call, Sparse(tiling, windows, *text, call.scale))

        observer = OBSERVER.get()
        if observer is None:
            windows = self._strategy(tiling).windows(call.step, call.layer, call.num_steps, heads, call.heads)
            return with_windows(windows or (tiling.tiles,) * heads)
        tokens = tile_order(tiling, query.device).scatter if layout.ordered else slice(0, video)
        return observer.observe(lambda window: with_windows((window,) * heads), tokens, tiling, text, call)

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall, sparse: Sparse
    ) -> torch.Tensor:
        """Attention by a sparse kernel, or full attention if that is what all windows are."""
        ordered, tiling = call.layout is not None and call.layout.ordered, sparse.tiling
        if all(is_full(window, tiling.tiles) for window in sparse.windows):
            self._count(sparse, "dense")
            if ordered:
                key, value = (without_padding(x, tiling, sparse.text_keys) for x in (key, value))
            result, call.served = dense(query, key, value, call.scale)
            return result
        name, call.served = self._kernel_for(sparse, query.shape[-1], str(query.dtype)[6:], query.device.type)
        self._count(sparse, name)
        function = _loaded(name)
        if ordered:
            return function(query, key, value, sparse)
        order = tile_order(tiling, query.device)
        in_order = (reorder(x, order.gather, tiling.tokens) for x in (query, key, value))
        return reorder(function(*in_order, sparse), order.scatter, tiling.places)

    def _count(self, sparse: Sparse, name: str) -> None:
        """Keep what the receipt tells: pairs of tokens that are computed, and pairs that there are."""
        tiling, windows, text = sparse.tiling, sparse.windows, (sparse.text_queries, sparse.text_keys)
        self._last_grid = tiling.grid
        whole = (tiling.tokens + text[0]) * (tiling.tokens + text[1]) * len(windows)
        work = whole
        if name != "dense":
            work = sum(work_of(tiling, window, *text) for window in windows) * BLOCK**2
            self._tallies.update({"sparse work": work, "sparse whole": whole})
        self._tallies.update({"calls": 1, name: 1, "work": work, "whole": whole})
        for window in dict.fromkeys(windows):
            self._windows_used[describe(window, tiling.tiles)] += windows.count(window)

    def _kernel_for(self, sparse: Sparse, head_dim: int, dtype: str, device: str) -> tuple[str, KernelUsed]:
        """The first kernel that is there and fits.

        Args:
            device: the type of a torch device.

        Raises:
            BackendMismatchError: none does, or the one that was asked for does not.
        """
        problems = []
        for name, probe in self._probes.items():
            if not probe.available:
                continue
            problem = KERNELS[name].mismatch(sparse, head_dim, dtype, device)
            if problem is None:
                return name, KernelUsed(probe.kernel, probe.version)
            problems.append(problem)
        asked = f" ({self.origin_of('kernel')}={self.settings.kernel})" if self.settings.kernel else ""
        raise BackendMismatchError(f"{self.name}{asked} cannot compute this: {'; '.join(problems)}")

    @property
    def _probes(self) -> dict[str, Probe]:
        """What each kernel, or the one that was asked for, says of the device, best first; asked once."""
        asked = (self.device, self.settings.kernel)
        if asked not in self._found:
            names = KERNELS if asked[1] is None else (asked[1],)
            self._found[asked] = {name: KERNELS[name].probe(self.device) for name in names}
        return self._found[asked]

    def tiling(self, grid: Triple) -> Tiling:
        """The file's tile, else the one that is set; with neither and no window, the one that computes least."""
        if self._table is not None and self._table.tile is not None:
            return tiling_for(grid, self._table.tile)
        tile = self.settings.tile
        if tile is None:
            return tiling_for(grid, default_for(grid).tile if self._chooses else DEFAULT_TILE)
        return tiling_for(grid, None if tile == "auto" else tile)

    @property
    def _chooses(self) -> bool:
        """Whether tile and window are left to us."""
        return self._table is None and self.settings.tile is None and self.settings.window is None

    def _strategy(self, tiling: Tiling) -> Strategy:
        return self._table if self._table is not None else self._uniform(tiling)

    def _uniform(self, tiling: Tiling) -> Uniform:
        """The window that was set; else the one that goes with the tile: 3 along each axis of a tile that was set."""
        time, height, width = (min(size, count) for size, count in zip(DEFAULT_WINDOW, tiling.tiles, strict=True))
        usual = default_for(tiling.grid).window if self._chooses else (time, height, width)
        return Uniform(self.settings.window or usual, self.settings.dense)

    @property
    def _table(self) -> Table | None:
        table: Table | None = self.settings.file
        return table

    @property
    def _orders_once(self) -> bool:
        return bool(self.settings.order == "forward")


@cache
def _loaded(name: str) -> Callable[..., torch.Tensor]:
    function: Callable[..., torch.Tensor] = KERNELS[name].load()
    return function


def _check_tiles(tiling: Tiling, origin: str) -> None:
    if math.prod(tiling.tiles) == 1:
        raise InputError(
            f"the canvas of {by(tiling.grid)} tokens is not larger than one tile of {by(tiling.tile)}: sliding tiles "
            f"would be full attention; choose a smaller tile ({origin}), a larger video, or TORCH_SDPA"
        )


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
