"""In what order tests run: what takes longest first, so that workers that share them come to their ends together."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

LONGEST = (
    "test_fv_ray_cluster",
    "test_serve_ray",
    "test_parallel",
    "test_dist",
    "test_fv_sta",
    "test_parallel_ends",
    "test_fv_serve",
    "test_workers",
    "test_documents",
    "test_examples",
    "test_fv_serve_killed",
    "test_hunyuan15",
    "test_parallel_families",
    "test_new_plugin",
    "test_streams",
    "test_batch",
    "test_third_party",
    "test_shapes",
    "test_bench",
    "test_parallel_runs",
    "test_parallel_bench",
    "test_suite",
    "test_compile",
)
"""Files with tests of ten seconds and more, which start processes or compile; in falling order."""


class Placed(Protocol):
    """A test, and the file that it stands in."""

    @property
    def path(self) -> Path: ...


Item = TypeVar("Item", bound=Placed)


def longest_first(items: list[Item], workers: int = 3) -> list[Item]:
    """The same tests in as many parts as there are workers, each with its share of the longest files before the others.

    With `--dist worksteal` each worker begins with one part of the list, and one that is done takes from the end of
    what another has left. Files stay together, for what their tests share.
    """
    files: dict[Path, list[Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    ranked = sorted((path for path in files if path.stem in LONGEST), key=lambda path: LONGEST.index(path.stem))
    longest: list[list[Item]] = [[] for _ in range(workers)]
    for number, path in enumerate(ranked):
        turn, place = divmod(number, workers)
        longest[place if turn % 2 == 0 else workers - 1 - place].extend(files.pop(path))
    others = [item for file in files.values() for item in file]
    ordered: list[Item] = []
    for number, part in enumerate(longest, 1):
        room = max(0, len(items) * number // workers - len(ordered) - len(part))
        ordered += [*part, *others[:room]]
        others = others[room:]
    return [*ordered, *others]
