"""Work through rows: check all of them, then make one after the other, or find it on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fastvideo_core.app.batch.expected import expected_of_row
from fastvideo_core.app.batch.on_disk import Files, is_done
from fastvideo_core.app.batch.problems import Problems
from fastvideo_core.app.batch.row import PromptRow, RowResult, RowStatus
from fastvideo_core.app.cache_request import CacheRequest
from fastvideo_core.app.make import Video
from fastvideo_core.app.memory import check_memory
from fastvideo_core.app.model_info import ModelInfo
from fastvideo_core.app.output import prepare_folder
from fastvideo_core.app.result import VideoResult
from fastvideo_core.app.sampling import SamplingParam
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.contract.reading import shown
from fastvideo_core.discovery.plugins import Plugins
from fastvideo_core.engine.caching.choice import choose_policy, prepared_policy
from fastvideo_core.errors import AttachError, CancelledError, InputError, OutputError, ParallelError

Make = Callable[[Video], VideoResult]
Prepare = Callable[[Sequence[str], SamplingParam, CacheRequest], Make]


@dataclass(frozen=True)
class Order:
    """A row with everything that its video is made with.

    Attributes:
        params: the call's sampling parameters with the row's own.
        request: the row's caching policy, or the call's.
        policy: what that comes to.
        key: the same for rows that differ in nothing but prompt, id and seed.
    """

    row: PromptRow
    params: SamplingParam
    request: CacheRequest
    policy: CachePolicy | None
    key: str

    @property
    def id(self) -> str:
        return self.row.id or ""


def checked_orders(
    rows: Sequence[PromptRow], params: SamplingParam, request: CacheRequest, info: ModelInfo, plugins: Plugins
) -> list[Order]:
    """The orders for rows that have ids.

    Raises:
        InputError: rows ask for what the model cannot do: all of them, each with its place.
    """
    problems, orders = Problems(), []
    policies: dict[str, CachePolicy | None] = {}
    for row in rows:
        with problems.noted(row.place):
            own = params.with_overrides(**row.sampling)
            own.check(info)
            of_row = request if row.cache is None else CacheRequest(row.cache, None, False)
            key = _key(own, of_row)
            if key not in policies:
                chosen = choose_policy(plugins, of_row.cache, of_row.config, of_row.defaults(own, info.cached_model))
                ready = prepared_policy(chosen, info.cached_model)
                policies[key] = ready.policy if ready else None
            orders.append(Order(row, own, of_row, policies[key], key))
    problems.raise_any()
    return orders


def checked_folder(params: SamplingParam) -> Path:
    """The folder for the files of all rows.

    Raises:
        InputError: the parameters name a file, ask for no files, or for several videos of each row.
        OutputError: it cannot be written to.
    """
    if params.output_video_name is not None or Path(params.output_path).suffix.lower() == ".mp4":
        name = params.output_video_name or params.output_path
        raise InputError(f"{str(name)!r} names one file, and each row has its own, named by its id; give a folder")
    if not params.save_video:
        raise InputError("save_video is False, but a row is done when its video is on disk")
    if params.num_videos_per_prompt != 1:
        raise InputError(
            f"num_videos_per_prompt is {params.num_videos_per_prompt}, but a row is one video; give a row for each, "
            "with its seed"
        )
    return prepare_folder(params.output_path)[0]


class Work:
    """Makes the videos of rows into one folder.

    Args:
        loading: what every receipt says of how the model was loaded.
        prepare: what checks prompts and parameters, and gives what makes a video with them.
    """

    def __init__(
        self, orders: Sequence[Order], folder: Path, info: ModelInfo, loading: Mapping[str, Any], prepare: Prepare
    ) -> None:
        self._orders, self._folder, self._info = orders, folder, info
        self._loading, self._prepare = loading, prepare
        self._ready: tuple[str, Make] | None = None

    def check(self, device: str) -> None:
        """Check what can be only when the model is loaded, such as the lengths of prompts.

        Raises:
            InputError, CacheError: with the place of the row.
        """
        problems = Problems()
        groups: dict[str, list[Order]] = {}
        for order in self._orders:
            groups.setdefault(order.key, []).append(order)
        for group in groups.values():
            with problems.noted(group[0].row.place):
                check_memory(group[0].params, self._info, device, torch.float32)
            try:
                self._check(group)
            except InputError:
                for order in group:
                    with problems.noted(order.row.place):
                        self._check([order])
        problems.raise_any()

    def _check(self, orders: Sequence[Order]) -> None:
        params = replace(orders[0].params, save_video=False)
        self._prepare([order.row.prompt for order in orders], params, orders[0].request)

    def do(self, order: Order) -> RowResult:
        """Make the video of a row, unless it is whole on disk.

        Raises:
            OutputError: no more files can be written; AttachError, ParallelError: no more videos can be made;
            CancelledError: this one was cancelled. What is
            wrong with this row alone is in its result.
        """
        start = time.perf_counter()
        try:
            result = self.found(order) or self._made(order)
        except (AttachError, CancelledError, ParallelError):
            raise
        except OutputError as error:
            result = self._of_another(order, error)
        except Exception as error:
            result = self._failed(order, error)
        if result.status is not RowStatus.FOUND:
            result.seconds = time.perf_counter() - start
        return result

    def found(self, order: Order) -> RowResult | None:
        """The result of a row that needs no work: its video is there, or its names are taken; None for any other."""
        files = Files(self._folder, order.id)
        expected = expected_of_row(order.row.prompt, order.params, order.policy, self._info, self._loading)
        try:
            if not is_done(files, expected, order.params.sheet):
                return None
        except OutputError as error:
            return self._failed(order, error)
        return RowResult(
            order.id,
            order.row.prompt,
            RowStatus.FOUND,
            files.video,
            files.receipt,
            files.sheet if files.sheet.is_file() else None,
        )

    def _made(self, order: Order) -> RowResult:
        if self._ready is None or self._ready[0] != order.key:
            self._ready = order.key, self._prepare([order.row.prompt], order.params, order.request)
        video = self._ready[1](Video(order.row.prompt, order.params.seed, order.id))
        paths = video.video_path, video.receipt_path, video.sheet_path
        return RowResult(order.id, order.row.prompt, RowStatus.MADE, *paths, video=video)

    def _of_another(self, order: Order, error: OutputError) -> RowResult:
        """What another process wrote under the name meanwhile; raises the error where there is nothing."""
        result = self.found(order)
        if result is None:
            raise error
        return result

    def _failed(self, order: Order, error: Exception) -> RowResult:
        return RowResult(order.id, order.row.prompt, RowStatus.FAILED, error=error)


def _key(params: SamplingParam, request: CacheRequest) -> str:
    cache = request.cache if isinstance(request.cache, str | None) else f"object {id(request.cache)}"
    values = {**vars(replace(params, seed=0)), "teacache_params": params.teacache_params.settings()}
    return json.dumps([values, cache, shown(request.config), request.as_fastvideo], default=str, sort_keys=True)
