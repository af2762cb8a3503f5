"""In what order tests run: what takes longest first, so that workers that share them come to their ends together."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

LONGEST = (
    "test_fv_ray_cluster",
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


def longest_first(items: list[Item]) -> list[Item]:
    """The same tests: half of the longest files, half of the others, the other half of the longest, and what is left.

    With `--dist worksteal` two workers begin at the two halves of the list, and one that is done takes from the end of
    what the other has left. Files stay together, for what their tests share.
    """
    files: dict[Path, list[Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    ranked = sorted((path for path in files if path.stem in LONGEST), key=lambda path: LONGEST.index(path.stem))
    longest = [files.pop(path) for path in ranked]
    first, second = (
        [item for number, file in enumerate(longest) if number % 4 in numbers for item in file]
        for numbers in ((0, 3), (1, 2))
    )
    others = [item for file in files.values() for item in file]
    middle = max(0, len(items) // 2 - len(first))
    return [*first, *others[:middle], *second, *others[middle:]]
