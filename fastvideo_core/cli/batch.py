"""`fv generate --prompts`: rows of a file, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fastvideo_core.cli.output import say
from fastvideo_core.errors import InputError

if TYPE_CHECKING:
    from fastvideo_core.app.batch.results import Results
    from fastvideo_core.app.batch.row import PromptRow, RowResult
    from fastvideo_core.app.batch.shard import Shard
    from fastvideo_core.app.batch.work import Order
    from fastvideo_core.app.generator import VideoGenerator
    from fastvideo_core.app.model_info import ModelInfo
    from fastvideo_core.app.result import VideoResult
    from fastvideo_core.app.sampling import SamplingParam
    from fastvideo_core.discovery.plugins import Plugins


@dataclass
class Batch:
    """The rows of a file that this run works through.

    Attributes:
        rows: all of the file, so that ids are the same in every part.
        orders: those of this part, as soon as they are checked.
    """

    rows: list[PromptRow]
    shard: Shard
    retry_failed: bool
    orders: list[Order]
    folder: Path = Path()

    @classmethod
    def read(cls, path: Path | None, shard: str | None, retry_failed: bool) -> Self | None:
        """The rows of a file; None where no file is given.

        Raises:
            InputError: the file is wrong; or there is none that the other options could be for.
        """
        from fastvideo_core.app.batch.reading import read_rows
        from fastvideo_core.app.batch.shard import Shard

        if path is not None:
            return cls(read_rows(path), Shard.parse(shard), retry_failed, [])
        if shard is not None or retry_failed:
            raise InputError(f"{'--retry-failed' if shard is None else '--shard'} is for --prompts FILE; give a file")
        return None

    def checked(
        self,
        params: SamplingParam,
        cache: str | None,
        cache_config: Mapping[str, Any],
        info: ModelInfo,
        plugins: Plugins,
    ) -> Iterable[SamplingParam]:
        """Check all rows, those of other parts too; one set of parameters for each kind of row.

        Raises:
            InputError: as `VideoGenerator.generate_videos`; before the model is loaded.
        """
        from fastvideo_core.app.batch.work import checked_orders
        from fastvideo_core.app.cache_request import CacheRequest

        every = checked_orders(self.rows, params, CacheRequest.of(False, cache, cache_config), info, plugins)
        self.orders = every[self.shard.number - 1 :: self.shard.count]
        return {order.key: order.params for order in every}.values()

    def prepare(self, params: SamplingParam) -> None:
        """Make the folder ready, likewise before the model is loaded; raises InputError, OutputError."""
        from fastvideo_core.app.batch.work import checked_folder

        self.folder = checked_folder(params)

    def run(
        self,
        generator: VideoGenerator,
        params: SamplingParam,
        cache: str | None,
        cache_config: Mapping[str, Any],
        show: Callable[[VideoResult], None],
    ) -> None:
        """Work through the rows, and print how far it is, and a summary, to the error stream.

        Raises:
            SystemExit: with status 1, if rows failed, now or in an earlier run.
        """
        from fastvideo_core.app.batch.results import Results, worked_through_alone
        from fastvideo_core.app.batch.tally import Tally

        path, tally = self.folder / f"results{self.shard.suffix}.jsonl", Tally(len(self.orders))
        with worked_through_alone(path):
            results = Results(path)
            given_up = {} if self.retry_failed else self._given_up(results)
            rows = [order.row for order in self.orders if order.id not in given_up]
            made: Iterator[RowResult] = iter(())
            if rows:
                made = generator.generate_videos(rows, params, cache=cache, cache_config=cache_config)
            for order in self.orders:
                result = given_up[order.id] if order.id in given_up else next(made)
                if order.id not in given_up:
                    results.add(order, result)
                if result.video is not None:
                    show(result.video)
                    result.video = None  # its frames are not kept while the next video is made
                say(tally.count(result), err=True)
        say(tally.summary(path), err=True)
        if tally.failed:
            sys.exit(1)

    def _given_up(self, results: Results) -> dict[str, RowResult]:
        """By id, the rows that failed in an earlier run, which are not tried again."""
        from fastvideo_core.app.batch.row import RowResult, RowStatus
        from fastvideo_core.errors import FastVideoError

        given_up = {}
        for order in self.orders:
            if (error := results.failed_before(order)) is not None:
                told = FastVideoError(f"in an earlier run, {error}; --retry-failed tries it again")
                given_up[order.id] = RowResult(order.id, order.row.prompt, RowStatus.FAILED, error=told)
        return given_up
