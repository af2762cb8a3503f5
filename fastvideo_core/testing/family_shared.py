"""Runs of a tiny pipeline that several tests of a family's suite look at, each made once for the suite."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch

from fastvideo_core.contract.caching import Signal
from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.testing.family_runs import Pass, Scripted, Watching, arguments_of, run_bare


class RunnableSuite(Protocol):
    """What a family's suite makes and attaches."""

    @property
    def family(self) -> ModelFamily: ...
    def generate(self, pipe: Any) -> torch.Tensor: ...
    def _pipeline(self) -> Any: ...
    def _transformer(self, pipe: Any) -> Any: ...
    def _attached(self, pipe: Any, backend: Any = ..., policy: Any = ...) -> Any: ...


@dataclass(frozen=True)
class Reading:
    """A run with a policy that reads a signal and never skips: what it made, was called with, and read."""

    latents: torch.Tensor
    arguments: list[dict[str, Any]]
    signals: list[torch.Tensor]


class SharedRuns:
    """Made when the first test asks; one that fails is made again for the next test, which fails as well."""

    _latest: ClassVar[SharedRuns | None] = None

    def __init__(self, suite: RunnableSuite) -> None:
        self.suite, self._read = suite, dict[Signal, Reading]()
        self._passes: tuple[list[dict[str, Any]], list[Pass]] | None = None

    @classmethod
    def of(cls, suite: RunnableSuite) -> SharedRuns:
        """Those of the suite's class. Of the classes before it nothing is kept."""
        if cls._latest is None or type(cls._latest.suite) is not type(suite):
            cls._latest = cls(suite)
        return cls._latest

    @cached_property
    def arguments(self) -> list[dict[str, Any]]:
        """What each pass of the bare pipeline calls the transformer with."""
        pipe = self.suite._pipeline()
        return arguments_of(self.suite._transformer(pipe), lambda: self.suite.generate(pipe))

    @cached_property
    def plain(self) -> torch.Tensor:
        """Latents of the pipeline with torch's attention attached."""
        pipe = self._pipe
        with self.suite._attached(pipe):
            return self.suite.generate(pipe)

    @cached_property
    def attending(self) -> tuple[Watching, torch.Tensor]:
        """A backend that has watched a run, and the latents."""
        pipe, backend = self.suite._pipeline(), Watching()
        with self.suite._attached(pipe, backend):
            return backend, self.suite.generate(pipe)

    def reading(self, signal: Signal) -> Reading:
        """A run that reads this signal."""
        if signal not in self._read:
            pipe, policy, made = self._pipe, Scripted(signal), list[torch.Tensor]()

            def generate() -> torch.Tensor:
                made.append(self.suite.generate(pipe))
                return made[0]

            with self.suite._attached(pipe, policy=policy):
                arguments = arguments_of(self.suite._transformer(pipe), generate)
            self._read[signal] = Reading(made[0], arguments, policy.signals)
        return self._read[signal]

    def passes(self, arguments: list[dict[str, Any]]) -> list[Pass]:
        """What the bare transformer makes of these arguments; the latest are kept, as most runs have the same."""
        if self._passes is None or not _same(self._passes[0], arguments):
            transformer = self.suite._transformer(self._pipe)
            self._passes = arguments, [run_bare(transformer, self.suite.family, given) for given in arguments]
        return self._passes[1]

    @cached_property
    def _pipe(self) -> Any:
        return self.suite._pipeline()


def _same(first: Any, second: Any) -> bool:
    """Equal in every bit, through lists, tuples and dictionaries; of other objects, the same ones."""
    if type(first) is not type(second):
        return False
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(first[name], second[name]) for name in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    return first is second or bool(isinstance(first, str | int | float) and first == second)
