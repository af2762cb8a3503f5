"""Rows as Ray Data has them, columns of arrays, and as the core has them."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from fastvideo_core import PromptRow, RowResult, RowStatus, errors

RESULT = ("id", "prompt", "status", "video", "receipt", "sheet", "seconds", "error", "ends_run", "process")
"""The columns that a video's row has in the end."""

_LONGEST_NAME = 60


def rows_in(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a batch, without what is missing in them.

    Where rows of one block have different fields, Ray Data fills up: with None, and numbers with NaN, which makes whole
    numbers floats. These are whole again.
    """
    names = list(batch)
    return [
        {name: value for name, cell in zip(names, cells, strict=True) if (value := _plain(cell)) is not None}
        for cells in zip(*batch.values(), strict=True)
    ]


def _plain(value: Any) -> Any:
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {name: plain for name, one in value.items() if (plain := _plain(one)) is not None}
    return value


def with_id(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with an id: its own, or one that only the same row has, whatever process it comes to."""
    if "id" in row:
        return dict(row)
    text = json.dumps(row, sort_keys=True, default=str)
    name = "-".join(re.findall(r"[a-z0-9]+", str(row.get("prompt")).lower()))[:_LONGEST_NAME].strip("-")
    return {**row, "id": f"{name or 'video'}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"}


def columns_of(results: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The columns of results, each as `result_row` gives it."""
    rows = list(results)
    return {name: [row[name] for row in rows] for name in RESULT}


def result_row(result: RowResult, process: str, ends_run: bool = False) -> dict[str, Any]:
    """A result in plain values; what there is none of is empty text, so that all blocks have one schema."""
    line = result.as_dict()
    paths = {name: line[f"{name}_path"] or "" for name in ("video", "receipt", "sheet")}
    told = {name: line[name] for name in ("id", "prompt", "status", "seconds")}
    return {**told, **paths, "error": line["error"] or "", "ends_run": ends_run, "process": process}


def as_result(row: Mapping[str, Any]) -> RowResult:
    """The result that such a row tells of, with an error of the same name."""
    video, receipt, sheet = (Path(row[name]) if row[name] else None for name in ("video", "receipt", "sheet"))
    error = rebuilt(row["error"]) if row["error"] else None
    status = RowStatus(row["status"])
    return RowResult(row["id"], row["prompt"], status, video, receipt, sheet, float(row["seconds"]), error)


def rebuilt(told: str) -> errors.FastVideoError:
    """An error from its class's name and its message."""
    name, _, message = told.partition(": ")
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, errors.FastVideoError):
        return kind(message)
    error: errors.FastVideoError = type(name, (errors.FastVideoError,), {})(message)
    return error


def plain_row(row: PromptRow) -> dict[str, Any]:
    """What a process on another machine needs of a row: paths are absolute."""
    sampling: dict[str, Any] = {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in row.sampling.items()
        if value is not None
    }
    for name in ("image_path", "video_path"):
        if name in sampling:
            sampling[name] = str(Path(sampling[name]).absolute())
    cache = {} if row.cache is None else {"cache": row.cache}
    return {"prompt": row.prompt, "id": row.id, **cache, **sampling}
