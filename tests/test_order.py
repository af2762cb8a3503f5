"""The order in which the tests themselves run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.order import LONGEST, longest_first


@dataclass(frozen=True)
class Item:
    path: Path
    number: int


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_no_test_is_lost_and_each_worker_begins_with_a_long_file(workers: int) -> None:
    names = [*(f"test_short_{number}" for number in range(40)), *LONGEST[:8]]
    tests = [Item(Path(f"{name}.py"), number) for name in names for number in range(10)]
    ordered = longest_first(tests, workers)
    assert sorted(ordered, key=tests.index) == tests
    starts = [ordered[len(tests) * part // workers].path.stem for part in range(workers)]
    assert set(starts) == set(LONGEST[:workers])


def test_each_name_is_that_of_a_file() -> None:
    assert [name for name in LONGEST if not (Path(__file__).parent / f"{name}.py").exists()] == []
