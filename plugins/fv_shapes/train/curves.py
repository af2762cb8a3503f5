"""Draw the curves of a training from its log: python train/curves.py runs/log.jsonl curves.png."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SMOOTHED = 8


def smoothed(values: Sequence[float]) -> list[float]:
    """Means over each value and those before it."""
    return [sum(values[max(0, n - _SMOOTHED + 1) : n + 1]) / min(n + 1, _SMOOTHED) for n in range(len(values))]


def main(log: Path, picture: Path) -> None:
    """One panel for the autoencoder's PSNR, one for the transformer's loss by canvas."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows: list[dict[str, Any]] = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), constrained_layout=True)
    psnr = [(row["steps"], row["psnr"]) for row in rows if "psnr" in row]
    steps, values = zip(*psnr, strict=True)
    left.plot(steps, values, ".", markersize=2, color="0.7", label="a step, on clips of whichever size")
    left.plot(steps, smoothed(values), label=f"mean of {_SMOOTHED}")
    left.set(title="autoencoder", xlabel="steps", ylabel="PSNR, dB")
    losses: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            if name.startswith("loss_"):
                losses[name.removeprefix("loss_")].append((row["steps"], value))
    for canvas, points in losses.items():
        steps, values = zip(*points, strict=True)
        right.plot(steps, smoothed(values), label=canvas)
    right.set(title="transformer, flow matching", xlabel="steps", ylabel=f"loss, mean of {_SMOOTHED}", yscale="log")
    for axes in (left, right):
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
