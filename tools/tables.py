"""Write the tables of the documents anew from benchmarks/results/: python tools/tables.py [--check] (make tables).

A table stands between two comments, and is that of the newest run that has one of that name:

    <!-- table: sta, canvas wan, H200 -->
    <!-- end of table -->

The script, the table, and, where several devices have been measured, a part of the device's name.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SCHEMA = "fv-results/1"
MARK = re.compile(r"^[ \t]*(<!--\s*(?:table|end of table)\b[^>]*-->.*)$", re.MULTILINE)
REGION = re.compile(r"(<!-- table: (?P<what>[^>]+?) -->\n)(?P<text>.*?)(<!-- end of table -->)", re.DOTALL)
NAMED = (
    "torch",
    "diffusers",
    "flash-attn-4",
    "flash-attn-3",
    "flash-attn",
    "sageattention",
    "st-attn",
    "fastvideo-kernel",
)
"""Of the versions, those that stand below a table."""


def documents() -> list[Path]:
    """Those that may have such tables."""
    patterns = ("README.md", "docs/*.md", "plugins/*/README.md", "benchmarks/README.md")
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def renewed(text: str, runs: Sequence[dict[str, Any]]) -> str:
    """A document with its tables as these runs have them, the newest first.

    Raises:
        ValueError: a comment does not say a script of the benchmarks and a table, or has no end.
    """
    check_marks(text)

    def region(match: re.Match[str]) -> str:
        parts = [part.strip() for part in match["what"].split(",")]
        if not 2 <= len(parts) <= 3:
            raise ValueError(f"<!-- table: {match['what']} --> must say a script, a table, and at most a device")
        return f"{match[1]}{made(parts[0], parts[1], parts[2] if len(parts) == 3 else '', runs)}{match[4]}"

    return REGION.sub(region, text)


def check_marks(text: str) -> None:
    """Raise ValueError unless the comments begin and end tables in turns, as they are written above."""
    begun = ""
    for mark in MARK.finditer(text):
        comment = mark[1]
        begins = re.fullmatch(r"<!-- table: [^>]+? -->", comment) is not None
        if not begins and comment != "<!-- end of table -->":
            raise ValueError(f"{comment} is neither <!-- table: SCRIPT, TABLE --> nor <!-- end of table -->")
        if begins == bool(begun):
            raise ValueError(f"{begun or comment} has no {'end' if begun else 'beginning'}")
        begun = comment if begins else ""
    if begun:
        raise ValueError(f"{begun} has no end")


def made(script: str, name: str, device: str, runs: Sequence[dict[str, Any]]) -> str:
    """A table and what it was measured on; a line that says so where there is none yet."""
    if not (ROOT / "benchmarks" / f"{script}.py").is_file():
        raise ValueError(f"there is no benchmarks/{script}.py, which a table is to be of")
    for run in runs:
        if run["script"] != script or device.lower() not in run["device"].lower():
            continue
        found = next((table for table in run["tables"] if table["name"] == name), None)
        if found is not None:
            return f"\n{as_markdown(found)}\n\n{caption(found, run)}\n\n"
    return f"\nNot measured yet{f' on {device}' if device else ''}: `python benchmarks/{script}.py`.\n\n"


def as_markdown(table: dict[str, Any]) -> str:
    """Its rows, the base first, with a column for each note that a row has; or its cells, where it has no times."""
    if "columns" in table:
        return in_columns([table["columns"], *table["rows"]])
    notes = list(dict.fromkeys(note for row in table["rows"] for note in row["notes"]))
    unit, scale, digits = ("s", 1, 3) if min(row["median"] for row in table["rows"]) >= 1 else ("ms", 1e3, 2)
    lines = [["", f"{unit}, median (range)", f"times as fast as {table['base']}, median (range)", *notes]]
    for row in sorted(table["rows"], key=lambda row: row["name"] != table["base"]):
        times = [f"{scale * row[key]:.{digits}f}" for key in ("median", "low", "high")]
        ratios = [f"{row[key]:.3f}" for key in ("ratio", "ratio_low", "ratio_high")]
        cells = [f"{own[0]} ({own[1]} to {own[2]})" for own in (times, ratios)]
        if row["name"] == table["base"]:
            cells[1] = "1"
        lines.append([row["name"], *cells, *(shown(row["notes"].get(note, "")) for note in notes)])
    return in_columns(lines)


def in_columns(lines: Sequence[Sequence[str]]) -> str:
    """Markdown of a line of titles and others.

    Raises:
        ValueError: a line has more or fewer cells than the first.
    """
    rows = [f"| {' | '.join(line)} |" for line in lines]
    if any(len(line) != len(lines[0]) for line in lines):
        raise ValueError(f"a row has not {len(lines[0])} cells")
    return "\n".join([rows[0], "|---" * len(lines[0]) + "|", *rows[1:]])


def shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def caption(table: dict[str, Any], run: dict[str, Any]) -> str:
    """What was measured, on what, when and how."""
    versions = ", ".join(f"{name} {run['versions'][name]}" for name in NAMED if name in run["versions"])
    driver = f", driver {run['driver']}" if run["driver"] else ""
    title = table["title"][0].upper() + table["title"][1:]
    rounds = "" if "columns" in table else f"{table['rows'][0]['rounds']} alternating rounds, "
    return (
        f"{title}. {run['device']}{driver}, {versions}, Python {run['python']}, "
        f"{rounds}{run['date']}: `{run['command']}`."
    )


def read_runs(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All runs, the newest first.

    Raises:
        ValueError: a file is none of ours, with its name.
    """
    read = [(number_of(path), read_run(path)) for path in sorted(folder.glob("*.json"))]
    return [run for _, run in sorted(read, key=lambda one: (one[1]["date"], one[0]), reverse=True)]


def number_of(path: Path) -> int:
    """Which of a day's runs a file is of: those after the first have a number behind the name of the first."""
    first, _, number = path.stem.rpartition("-")
    return int(number) if number.isdecimal() and path.with_stem(first).exists() else 1


def read_run(path: Path) -> dict[str, Any]:
    """One file, checked as far as tables need it."""
    try:
        run: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if run["schema"] != SCHEMA:
            raise ValueError(f"its schema is {run['schema']!r}")
        for table in run["tables"]:
            as_markdown(table)
            caption(table, run)
        str.lower(run["device"] + run["script"])
        date.fromisoformat(run["date"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name} is not of the schema {SCHEMA}: {type(error).__name__}: {error}") from error
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; status 1 if a table is not that of the runs"
    )
    check = parser.parse_args(arguments).check
    try:
        runs, stale = read_runs(), list[str]()
        pages = {path: (before := path.read_text("utf-8"), renewed(before, runs)) for path in documents()}
    except ValueError as error:
        print(f"nothing was changed: {error}", file=sys.stderr)
        return 2
    for path, (before, after) in pages.items():
        if after != before:
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_text(after, "utf-8")
    print(f"{'not up to date' if check else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
