"""Several processes in the long run: many runs in one group, and runs that differ from one another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastvideo_core.errors import ParallelError
from tests.support import together_more
from tests.support.together import Together, together


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    with together(2, tmp_path_factory.mktemp("two")) as processes:
        yield processes


def test_many_runs_leave_nothing(two: Together) -> None:
    for result in two.run(together_more.run_many):
        assert not isinstance(result, BaseException), getattr(result, "__notes__", result)
        before, after = result
        assert after.pop("MiB") - before.pop("MiB") < 32, "the allocator alone varies by a third of that"
        assert after == before


@pytest.mark.parametrize("parallel", [{"sequence": 2}, {"guidance": 2}], ids=str)
def test_receipts_that_differ_are_an_error_that_names_what_does(two: Together, parallel: dict[str, int]) -> None:
    for error in two.run(together_more.run_scaled, [1.0, 1.5], parallel):
        assert type(error) is ParallelError, getattr(error, "__notes__", error)
        assert "the processes did not run the same: attention was" in str(error)
        assert "{'factor': 1.0}" in str(error)
        assert "{'factor': 1.5}" in str(error)
        assert "in process 1" in str(error)
    first, second = two.run(together_more.run_scaled, [1.5, 1.5], parallel)
    assert first.parallel == second.parallel
