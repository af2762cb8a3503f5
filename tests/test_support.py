"""docs/support.md has a row for every suite of a model family and a column for everything that is installed."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.families import FAMILIES
from tools import support

PAGE = support.PAGE.read_text("utf-8")


def rows() -> dict[str, list[str]]:
    """Cells by the name of the suite."""
    found = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if match := re.fullmatch(r"`(\w+)`, (\w+)", cells[0]):
            found[f"Test{match[2]}"] = [match[1], *cells[1:]]
    return found


def test_every_suite_and_everything_installed_is_in_the_table() -> None:
    suites = dict(support.suites())
    assert rows().keys() == suites.keys(), "write it anew: make support"
    assert f"| pipeline | family | {' | '.join(support.columns())} |" in PAGE, "write it anew: make support"
    assert {kind.family.name for kind in suites.values()} >= FAMILIES.keys(), "a family without a suite"
    assert all(f"| `{kind}` | {reason} |" in PAGE for kind, reason in support.left_out().items())


def test_refusals_have_their_messages() -> None:
    cells = [cell for row in rows().values() for cell in row]
    numbers = {int(match[1]) for cell in cells if (match := re.fullmatch(r"refused \[(\d+)\]", cell))}
    notes = {int(match[1]) for line in PAGE.splitlines() if (match := re.match(r"(\d+)\. \S", line))}
    assert numbers == notes
    known = re.compile(r"yes|equal|differs by \S+( from the bare pipeline)?|refused \[\d+\]")
    assert [cell for row in rows().values() for cell in row[2:] if not known.fullmatch(cell)] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["TestMochi"])
def test_a_row_tried_again_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without: list[str] = ["SLIDING_TILE_ATTN"]  # which compiles
    kept: list[str] = [column for column in support.columns() if column not in without]
    places = [support.columns().index(column) for column in kept]
    monkeypatch.setattr(support, "columns", lambda: kept)
    found: Any = support.row_of(name, dict(support.suites())[name])
    shown = rows()[name]
    assert [found.pipeline, found.family] == shown[:2]
    for column, place in zip(kept, places, strict=True):
        cell = shown[2 + place]
        expected = re.sub(r"refused \[(\d+)\]", lambda match: note(int(match[1])), cell)
        if not cell.startswith("differs by"):
            assert found.cells[column] == expected


def note(number: int) -> str:
    found = re.search(rf"^{number}\. (.+)$", PAGE, re.MULTILINE)
    assert found
    return found[1]
