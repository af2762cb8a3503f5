"""One run of `fv batch`: rows to actors, and their results back as they come."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from fastvideo_core import PromptRow, RowResult, RowStatus, check_output_file, written_whole
from fastvideo_core.errors import FastVideoError, InputError, OutputError, ParallelError
from fv_ray.cluster import connect, machines
from fv_ray.columns import as_result, plain_row, rebuilt, result_row
from fv_ray.dataset import RETRIES, map_videos
from fv_ray.shape import Asked, shape_for

_SEEN_SECONDS = 5.0
"""How long a shared folder may take to show a file that another machine has written."""


@dataclass
class Run:
    """What all rows are made with.

    Attributes:
        chosen: the caching policy and its settings. loading: arguments of `VideoGenerator.from_pretrained`.
        rows: of all results so far, in plain values.
    """

    asked: Asked
    address: str | None
    model: str
    sampling: Mapping[str, Any]
    chosen: Mapping[str, Any]
    loading: Mapping[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def results(self, rows: Sequence[PromptRow]) -> Iterator[RowResult]:
        """The results of rows, in the order in which they come.

        Raises:
            InputError: there is no cluster, or it has too little. OutputError: no more files can be written.
            Whatever loading the model raises.
        """
        left = {row.id: row for row in rows}
        with _cluster(self.address) as fixed, _placements() as placements:
            for row in self._told(rows, fixed, placements):
                del left[row["id"]]
                self.rows.append(row)
                if row["ends_run"]:
                    raise rebuilt(row["error"])
                yield _seen(as_result(row), row["process"])
        for lost in left.values():
            error = ParallelError(f"its process died {RETRIES + 1} times; Ray's logs of the actors may tell why")
            result = RowResult(str(lost.id), lost.prompt, RowStatus.FAILED, error=error)
            self.rows.append(result_row(result, ""))
            yield result

    def _told(self, rows: Sequence[PromptRow], fixed: bool, placements: list[Any]) -> Iterator[dict[str, Any]]:
        import ray.data
        from ray.exceptions import RayError

        shape = shape_for(self.asked, machines(), len(rows))
        if shape.problem and fixed:
            raise InputError(f"{shape.problem}; give a smaller --concurrency, or fewer for each video")
        if shape.problem:
            click.echo(f"waiting until machines join the cluster: {shape.problem}", err=True)
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # the command tells progress and errors itself
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # a row that kills its actor each time is none that ends the others
        options = {**self.chosen, **self.loading, **shape.arguments(), "warn_of_slots": False}
        with ray.data.DataContext.current(context):
            dataset = ray.data.from_items([plain_row(row) for row in rows], override_num_blocks=len(rows))
            made = map_videos(
                dataset, self.model, str(self.sampling["output_path"]), sampling=dict(self.sampling),
                placements=placements, **options,
            )  # fmt: skip
            made.set_name("fv batch")
            try:
                yield from made.iter_rows()
            except RayError as error:
                raise _cause(error) from error


def _cause(error: BaseException) -> FastVideoError:
    """The project's own error that one of Ray's tells of."""
    seen: BaseException | None = error
    while seen is not None:
        for one in (seen, getattr(seen, "cause", None)):
            if isinstance(one, FastVideoError):
                return one
        seen = seen.__cause__
    last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    return rebuilt(last[0]) if ": " in last[0] else ParallelError(last[0])


def _seen(result: RowResult, process: str) -> RowResult:
    """A result whose video this machine sees, or that fails for it."""
    until = time.monotonic() + _SEEN_SECONDS
    while result.video_path is not None and not result.video_path.exists():
        if time.monotonic() > until:
            error = OutputError(
                f"{str(result.video_path)!r} was written on {process}, and is not seen here: --output must be a folder "
                "that every machine sees"
            )
            return replace(result, status=RowStatus.FAILED, video_path=None, receipt_path=None, error=error)
        time.sleep(0.1)
    return result


@contextmanager
def _cluster(address: str | None) -> Iterator[bool]:
    """Be connected; yields whether no machine can join."""
    import ray

    connection = connect(address)
    try:
        yield connection.started
    finally:
        if connection.ours:
            ray.shutdown()


@contextmanager
def _placements() -> Iterator[list[Any]]:
    from ray.util.placement_group import remove_placement_group

    made: list[Any] = []
    try:
        yield made
    finally:
        for group in made:
            remove_placement_group(group)


def check_table(path: Path | None) -> None:
    """Raises InputError: it is no .parquet file. OutputError: it cannot be written."""
    if path is None:
        return
    if path.suffix.lower() != ".parquet":
        raise InputError(f"--table {str(path)!r} must end in .parquet; the lines of results.jsonl are written anyway")
    check_output_file(path, overwrite=True)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The results as Parquet, as a whole or not at all; raises OutputError."""
    import pyarrow
    from pyarrow import parquet

    with written_whole(path, overwrite=True) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), temporary)
