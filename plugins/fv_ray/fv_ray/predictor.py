"""What Ray Data calls with rows: one generator for each actor, loaded once."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from fastvideo_core import RowResult, RowStatus
from fastvideo_core.errors import AttachError, OutputError, ParallelError
from fv_ray.columns import columns_of, result_row, rows_in, with_id
from fv_ray.folder import folder_for


class VideoPredictor:
    """Makes the videos of rows, for `Dataset.map_batches`; `map_videos` calls that with what Ray needs beside it.

    A row has `prompt` and, if wanted, `id`, `cache` and any field of `SamplingParam`, as a line of `fv generate
    --prompts` has. One without an id gets one of its prompt and settings, so that only the same row has the same. A
    video that is whole in `output`, and made with the same settings, is found and not made again.

    What comes back are columns, empty where there is nothing: `id`, `prompt`, `status` ("made", "found" or "failed"),
    `video`, `receipt` and `sheet` (paths, or addresses), `seconds`, `error`, `ends_run` (whether no other row could be
    made either, such as on a full disk), and `process` (machine:pid).

    Args:
        model: a preset's name, a folder that every machine sees, or a hub id.
        output: a folder that every machine sees, or an address that fsspec knows, such as "s3://bucket/videos".
        sampling: fields of `SamplingParam` for rows that give none; default: the model's preset.
        cache, cache_config: as for `VideoGenerator.generate_videos`.
        warn_of_slots: whether to say so, where actors have every CPU slot, and nothing is left to read rows with.
        loading: arguments of `VideoGenerator.from_pretrained`.

    Raises:
        What `VideoGenerator.from_pretrained` raises. InputError: the address cannot be used.
    """

    def __init__(
        self,
        model: str,
        output: str,
        *,
        sampling: Mapping[str, Any] | None = None,
        cache: str | None = None,
        cache_config: Mapping[str, Any] | None = None,
        warn_of_slots: bool = True,
        **loading: Any,
    ) -> None:
        self._model, self._loading = model, loading
        self._folder = folder_for(output)
        self._sampling = {**(sampling or {}), "output_path": str(self._folder.local), "return_frames": False}
        self._cache, self._cache_config = cache, cache_config
        self._process = f"{platform.node()}:{os.getpid()}"
        if warn_of_slots:
            _warn_of_taken_slots()
        self._load()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """The results of rows, one after the other; what is wrong with a row is in its result."""
        return columns_of(self._told(with_id(row)) for row in rows_in(batch))

    def close(self) -> None:
        """Let go of the model."""
        self._generator.close()
        self._folder.close()

    def _load(self) -> None:
        from fastvideo_core import VideoGenerator

        self._generator = VideoGenerator.from_pretrained(self._model, **self._loading)
        self._generator.progress = False

    def _told(self, row: Mapping[str, Any]) -> dict[str, Any]:
        name, ends_run = str(row["id"]), False
        _log(name, "begins")
        with _warnings_with(name):
            try:
                result = self._result(row)
            except (AttachError, OutputError) as error:
                result, ends_run = _failed(row, error), True
            except Exception as error:
                result = _failed(row, error)
        what = {RowStatus.MADE: f"made in {result.seconds:.1f} s", RowStatus.FOUND: "done before"}
        _log(name, what.get(result.status, f"failed: {result.error}"))
        return result_row(result, self._process, ends_run)

    def _result(self, row: Mapping[str, Any]) -> RowResult:
        """Of a row; once more with a new generator if the processes of this one have ended."""
        try:
            return self._folder.doing(str(row["id"]), lambda: self._made(row))
        except ParallelError as error:
            _log(str(row["id"]), f"once more: {error}")
            self._generator.close()
            self._load()
            return self._folder.doing(str(row["id"]), lambda: self._made(row))

    def _made(self, row: Mapping[str, Any]) -> RowResult:
        if not self._generator.is_open:
            self._load()
        results = self._generator.generate_videos(
            [row], cache=self._cache, cache_config=self._cache_config, **self._sampling
        )
        return replace(next(results), video=None)


def _failed(row: Mapping[str, Any], error: Exception) -> RowResult:
    return RowResult(str(row["id"]), str(row.get("prompt", "")), RowStatus.FAILED, error=error)


@contextmanager
def _warnings_with(name: str) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        _log(name, f"warning: {warning.message}")


def _log(name: str, what: str) -> None:
    print(f"[{name}] {what}", file=sys.stderr, flush=True)


def _warn_of_taken_slots() -> None:
    """Say why a job stands still, where actors such as this one have every CPU slot."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    mine = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    if mine and ray.available_resources().get("CPU", 0) < 1:
        _log(
            "fv-ray",
            f"actors have all {ray.cluster_resources().get('CPU', 0):g} CPU slots of the cluster, so tasks that read "
            "rows must wait, and the job may stand still: give map_batches num_cpus=0, or use map_videos of fv_ray",
        )
