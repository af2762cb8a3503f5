"""`fv generate --prompts`, and commands of plugins that work through the rows of a file in another way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fastvideo_core.cli.output import discovered, say
from fastvideo_core.errors import InputError

if TYPE_CHECKING:
    from fastvideo_core.app.batch.results import Results
    from fastvideo_core.app.batch.row import PromptRow, RowResult
    from fastvideo_core.app.batch.shard import Shard
    from fastvideo_core.app.batch.work import Order
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

    def check(
        self, model: str, sampling: Mapping[str, Any], cache: str | None, cache_config: Mapping[str, Any]
    ) -> SamplingParam:
        """Check all rows, and make the folder ready, for a model that this process does not load.

        Args:
            sampling: fields of `SamplingParam` for rows that give none; of them `output_path` is the folder.

        Returns:
            The model's parameters with these.

        Raises:
            ModelError: the model is not found, or not supported. InputError: rows ask for what it cannot do: all of
            them, each with its place. CacheError: so does `cache`. OutputError: the folder cannot be written to.
        """
        from fastvideo_core.app.model_info import read_model
        from fastvideo_core.app.sampling import SamplingParam

        plugins = discovered()
        info = read_model(plugins, model)
        params = SamplingParam.from_preset(info.preset).with_overrides(**sampling)
        self.checked(params, cache, cache_config, info, plugins)
        self.prepare(params)
        return params

    def prepare(self, params: SamplingParam) -> None:
        """Make the folder ready, likewise before the model is loaded; raises InputError, OutputError."""
        from fastvideo_core.app.batch.work import checked_folder

        self.folder = checked_folder(params)

    def run(
        self, work: Callable[[Sequence[PromptRow]], Iterable[RowResult]], show: Callable[[VideoResult], None]
    ) -> None:
        """Work through the rows, and print how far it is, and a summary, to the error stream.

        Args:
            work: gives the result of each row that it is given, in any order, such as
                `VideoGenerator.generate_videos`; not called where there are none.
            show: prints a video that was made now, where its result has it.

        Raises:
            SystemExit: with status 1, if rows failed, now or in an earlier run.
            OutputError: another run writes into the folder. Whatever `work` raises.
        """
        from fastvideo_core.app.batch.results import Results, worked_through_alone
        from fastvideo_core.app.batch.tally import Tally

        path, tally = self.folder / f"results{self.shard.suffix}.jsonl", Tally(len(self.orders))
        with worked_through_alone(path):
            results = Results(path)
            given_up = {} if self.retry_failed else self._given_up(results)
            for result in given_up.values():
                say(tally.count(result), err=True)
            left = {order.id: order for order in self.orders if order.id not in given_up}
            for result in work([order.row for order in left.values()]) if left else ():
                results.add(left[result.id], result)
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
