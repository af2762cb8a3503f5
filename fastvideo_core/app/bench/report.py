"""The table, the JSON file and the plot of a bench."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastvideo_core.app.bench.setup import NO_CACHE, Setup
from fastvideo_core.app.bench.store import Store
from fastvideo_core.app.bench.summary import Row, Spread
from fastvideo_core.app.files import written_whole

COLUMNS = ("", "seconds", "speed-up", "skipped", "attention", "memory", "PSNR dB", "SSIM", "right")
COLUMNS_OF_SEVERAL = ("to one process", "communication", "sent")
"""Those that are there where several processes make a video."""


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of text: medians, with the spread in brackets."""
    cells = columns_and_cells(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def columns_and_cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The columns' names, and every row as text."""
    if all(row.processes == 1 for row in rows):
        return [COLUMNS, *map(cells_of, rows)]
    return [COLUMNS + COLUMNS_OF_SEVERAL, *((*cells_of(row), *_cells_of_several(row)) for row in rows)]


def _cells_of_several(row: Row) -> tuple[str, str, str]:
    seconds, sent = row.communication_seconds, row.bytes_sent
    return (
        "-" if row.to_one_process is None else _spread(row.to_one_process, 2),
        "-" if seconds is None else f"{seconds:.3f} s a step",
        "-" if sent is None else f"{sent / 2**20:.1f} MiB",
    )


def cells_of(row: Row) -> tuple[str, ...]:
    """A row as text."""
    return (
        row.title,
        _spread(row.seconds, 2),
        _spread(row.speed_up, 2),
        f"{row.skipped:.0%}",
        "-" if row.attention_share is None else f"{row.attention_share:.0%}",
        "-" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**30:.1f} GiB",
        _quality(row.psnr, row.equal, 1),
        _quality(row.ssim, 0, 3),
        _accuracy(row),
    )


def _accuracy(row: Row) -> str:
    parts = [] if row.accuracy is None else [f"{row.accuracy:.0%}"]
    return ", ".join([*parts, *([f"{row.unscored} unscored"] if row.unscored else [])]) or "-"


def unscored(setup: Setup, store: Store) -> list[str]:
    """A line for each video of which the model's checker could say nothing."""
    found = [store.find(combination, sample) for sample in setup.samples for combination in setup.combinations]
    return [
        f"unscored: {one.video}, seed {one.seed}, {one.prompt!r}: {one.unscored}"
        for one in found
        if one is not None and one.unscored
    ]


def _spread(spread: Spread, digits: int) -> str:
    return f"{spread.median:.{digits}f} ({spread.least:.{digits}f}-{spread.greatest:.{digits}f})"


def _quality(spread: Spread | None, equal: int, digits: int) -> str:
    parts = ([_spread(spread, digits)] if spread else []) + ([f"{equal} equal"] if equal else [])
    return ", ".join(parts) or "-"


def as_json(setup: Setup, store: Store, rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that was measured, as plain values."""
    return {
        **setup.describe(),
        "prompts": list(dict.fromkeys(sample.prompt for sample in setup.samples)),
        "versions": setup.machine["versions"],
        "device": setup.machine["name"],
        "details": setup.details,
        "rows": [asdict(row) for row in rows],
        "videos": [
            asdict(found)
            for sample in setup.samples
            for combination in setup.combinations
            if (found := store.find(combination, sample))
        ],
    }


def write_json(setup: Setup, store: Store, rows: Sequence[Row], path: Path) -> None:
    """Write the JSON file."""
    with written_whole(path, overwrite=True) as file:
        text = json.dumps(as_json(setup, store, rows), indent=1, ensure_ascii=False, default=str)
        file.write_text(text + "\n", "utf-8")


def draw(rows: Sequence[Row], path: Path) -> None:
    """A PNG of quality against speed-up; a line for each policy of a backend, by its name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    for name, points in _lines(rows).items():
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], marker="o", label=name)
        for x, y, label in points:
            axes.annotate(label, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.set_xlabel("speed-up of denoising over the plain run (median)")
    axes.set_ylabel("PSNR against the plain video, dB (median)")
    axes.margins(x=0.15)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        scored = any(row.accuracy is not None for row in rows)
        axes.legend(title="setting: videos that are right" if scored else None)
    with written_whole(path, overwrite=True) as file:
        figure.savefig(file, format="png", dpi=110)


def _lines(rows: Sequence[Row]) -> dict[str, list[tuple[float, float, str]]]:
    """Speed-up, PSNR and label of each row that differs from the plain videos, per line of the plot."""
    backends, numbers = {row.attention for row in rows}, {row.processes for row in rows}
    lines: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        if row.psnr is None:
            continue
        policy, _, value = row.cache.partition("@")
        name = policy if policy.lower() != NO_CACHE else "no caching"
        name = f"{row.attention} + {name}" if len(backends) > 1 else name
        name = f"{name}, {row.processes} processes" if len(numbers) > 1 and row.processes > 1 else name
        accuracy = "" if row.accuracy is None else f": {row.accuracy:.0%}"
        lines.setdefault(name, []).append((row.speed_up.median, row.psnr.median, f"{value}{accuracy}"))
    return {name: sorted(points) for name, points in lines.items()}
