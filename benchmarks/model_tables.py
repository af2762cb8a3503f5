"""Tables of what `models.py` measured: peaks of memory, parts by themselves, and seconds per step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from results import Listing

WAYS = {
    "whole": "all on the GPU",
    "vae tiling": "tiles",
    "vae offload": "tiles, VAE offloaded",
    "text offload": "tiles, text encoder offloaded",
    "dit offload": "tiles, transformer offloaded",
    "all offload": "tiles, all three offloaded",
    "fp8": "tiles, `fp8-layerwise`",
    "torchao int8": "tiles, `torchao-int8`",
    "nf4": "tiles, `bnb-nf4`",
}
"""How the weights are kept, with the title of a column. All but "whole" decode in tiles."""
PARTS = {
    "text": "text encoder",
    "denoise": "a step of the transformer",
    "decode": "decode",
    "decode in tiles": "decode in tiles",
}
"""What is measured by itself, with the title of a column."""
GPUS = (12, 16, 24, 40, 80)
_FREE = 0.95
"""Share of a GPU that a run may take: the rest is CUDA's, and other programs'."""


def listings(results: Mapping[str, Any], videos: Mapping[str, tuple[int, int, int]]) -> list[Listing]:
    """The tables.

    Args:
        results: by model and way, as the script's JSON file has them, and "machine".
        videos: frames, height and width by model.
    """
    limit = results["machine"]["memory"]
    of_models = {name: results[name] for name in videos if name in results}
    sizes = {name: f"{name}, {frames}x{height}x{width}" for name, (frames, height, width) in videos.items()}
    peaks = [[sizes[name], *(_peak(ways.get(way), limit) for way in WAYS)] for name, ways in of_models.items()]
    parts = [
        [name, *(_alone(alone[part], limit) if alone and part in alone else "" for part in PARTS)]
        for name, ways in of_models.items()
        for alone in [ways.get("whole", {}).get("alone")]
    ]
    steps = [
        [sizes[name], WAYS[way], f"{step['bare']:.3f} s", f"{step['attached']:.3f} s", _ratio(step), _backends(step)]
        for name, ways in of_models.items()
        for way, found in ways.items()
        if "attached" in (step := found.get("step", {}))
    ]
    return [
        Listing("memory", "peak of the allocator, and the smallest GPU that holds it", ["", *WAYS.values()], peaks),
        Listing(
            "parts",
            "peak of each part with nothing else on the GPU",
            ["", *PARTS.values()],
            [row for row in parts if any(row[1:])],
        ),
        Listing(
            "steps",
            "a step with all its guidance branches, eager, bare diffusers and attached in turns, medians",
            ["", "weights", "bare", "attached", "times as fast", "backend"],
            steps,
        ),
    ]


def gib(count: int) -> str:
    """Bytes in GiB."""
    return f"{count / 2**30:.1f} GiB"


def _alone(count: int, limit: int) -> str:
    """A negative number stands for more than there is."""
    return gib(count) if count >= 0 else _more_than(limit)


def _more_than(limit: int) -> str:
    return f"more than {limit / 2**30:.0f} GiB"


def _peak(found: Mapping[str, Any] | None, limit: int) -> str:
    if found and "peak" in found:
        fits = next((f" ({size} GB)" for size in GPUS if found["peak"] < size * _FREE * 2**30), "")
        return f"{gib(found['peak'])}{fits}"
    if found and any("out of memory" in str(key) for key in found):
        return _more_than(limit)
    return "not measured"


def _ratio(step: Mapping[str, Any]) -> str:
    return f"{step['bare'] / step['attached']:.2f}"


def _backends(step: Mapping[str, Any]) -> str:
    return ", ".join(dict.fromkeys(step["backends"].values()))
