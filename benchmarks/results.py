"""One JSON file per run of a benchmark, in benchmarks/results/; `make tables` makes tables of documents from them.

A file says what it was measured on and how, and has a list of tables:

    schema     "fv-results/1"
    script     "sta"
    command    the command line, from the root of the repository
    date       "2026-11-26"
    device     "NVIDIA H200"; driver, and clocks of the GPU before and after as nvidia-smi tells them, null on a CPU
    python, versions
    tables     [{name, title, base, rows: [{name, rounds, median, low, high, ratio, ratio_low, ratio_high, notes}]}]
               or, of anything but times, [{name, title, columns, rows: [[cell, …], …]}]

Times are in seconds: the median of the rounds and the shortest and longest. `ratio` is how many times as fast as the
row that `base` names: the median, over the rounds, of the base's time over the row's in the same round, with its range.
`notes` is what else a row has to say, by name: numbers and text.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from fastvideo_core import written_whole

SCHEMA = "fv-results/1"
FOLDER = Path(__file__).parent / "results"
PACKAGES = (
    "torch",
    "diffusers",
    "flash-attn",
    "flash-attn-3",
    "flash-attn-4",
    "sageattention",
    "sageattn3",
    "st-attn",
    "fastvideo-kernel",
    "kernels",
    "torchao",
    "bitsandbytes",
    "cache-dit",
    "triton",
)
CLOCKS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit", "power.draw", "temperature.gpu")


@dataclass(frozen=True)
class Row:
    """What one way to compute took; see the module for the fields."""

    name: str
    rounds: int
    median: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Ways to compute the same, measured in the same rounds."""

    name: str
    title: str
    base: str
    rows: list[Row]


@dataclass(frozen=True)
class Listing:
    """A table of anything but times, each cell as it is shown."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]


def table(
    name: str,
    title: str,
    seconds: Mapping[str, Sequence[float]],
    base: str,
    notes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Table:
    """A table from the seconds of each round, by row; all rows have the same rounds, and one of them is the base."""
    rows = []
    for title_of_row, taken in seconds.items():
        ratios = [of_base / own for of_base, own in zip(seconds[base], taken, strict=True)]
        rows.append(
            Row(
                title_of_row,
                len(taken),
                median(taken),
                min(taken),
                max(taken),
                median(ratios),
                min(ratios),
                max(ratios),
                dict((notes or {}).get(title_of_row, {})),
            )
        )
    return Table(name, title, base, rows)


class Results:
    """What a run measured; printed as it comes, and written at the end."""

    def __init__(self, script: str, device: str) -> None:
        self.script, self.device = script, device
        self.tables: list[Table | Listing] = []
        self._clocks_before = clocks(device)

    def add(self, made: Table | Listing) -> None:
        """Keep a table, and print it."""
        self.tables.append(made)
        print(as_text(made), flush=True)

    def write(self, folder: Path = FOLDER) -> Path:
        """Write the file, under a name that no other has.

        Raises:
            OSError: the folder cannot be written to.
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = device_name(self.device)
        stem = f"{date.today().isoformat()}-{self.script}-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}"
        numbered = (folder / f"{stem}{'' if number == 1 else f'-{number}'}.json" for number in range(1, 1000))
        path = next(path for path in numbered if not path.exists())
        content = {
            "schema": SCHEMA,
            "script": self.script,
            "command": shlex.join(["python", f"benchmarks/{self.script}.py", *sys.argv[1:]]),
            "date": date.today().isoformat(),
            "device": name,
            "driver": nvidia_smi(self.device, "driver_version"),
            "clocks": {"before": self._clocks_before, "after": clocks(self.device)},
            "python": platform.python_version(),
            "versions": versions(),
            "tables": [asdict(one) for one in self.tables],
        }
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"\n{path}")
        return path


def as_text(made: Table | Listing) -> str:
    """For a terminal."""
    if isinstance(made, Listing):
        return "\n".join([f"\n{made.title}", *(" | ".join(row) for row in [made.columns, *made.rows])])
    lines = [f"\n{made.title}; medians of {made.rows[0].rounds} rounds (range), against {made.base}"]
    width = max(len(row.name) for row in made.rows)
    for row in made.rows:
        notes = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.notes.items()
        )
        lines.append(
            f"  {row.name:{width}} {1e3 * row.median:10.2f} ms ({1e3 * row.low:.2f} to {1e3 * row.high:.2f}) "
            f"{row.ratio:7.3f} x ({row.ratio_low:.3f} to {row.ratio_high:.3f})  {notes}"
        )
    return "\n".join(lines)


def device_name(device: str) -> str:
    """The GPU's name, or the CPU's."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        models = []
    return f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Of what is installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def clocks(device: str) -> dict[str, str] | None:
    """Clocks, power and temperature as nvidia-smi tells them; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    return {name: nvidia_smi(device, name) or "" for name in CLOCKS}


def nvidia_smi(device: str, query: str) -> str | None:
    """What nvidia-smi answers; None where it does not."""
    if not device.startswith("cuda"):
        return None
    index = str(torch.device(device).index or 0)
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", f"--id={index}"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
