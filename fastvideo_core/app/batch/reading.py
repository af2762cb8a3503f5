"""Rows from a file of prompts, or from Python: everything that is wrong with them is said at once, with its line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from fastvideo_core.app.batch.problems import Problems
from fastvideo_core.app.batch.row import PromptRow, check_id
from fastvideo_core.app.output import name_for
from fastvideo_core.app.prompts import check_prompt
from fastvideo_core.app.sampling import SamplingParam, TeaCacheParams
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.errors import InputError

_JSON_LINES = (".jsonl", ".ndjson")
_OF_THE_CALL = {
    "num_videos_per_prompt": "give a row for each video, with its seed",
    "output_path": "give the folder for all rows: --output, or output_path= of generate_videos",
    "output_video_name": "give it as id",
    "save_video": "a row is done when its video is on disk",
    "return_frames": "give it to generate_videos",
}
"""Sampling parameters that no row has, and what to do instead."""


def read_rows(path: Path) -> list[PromptRow]:
    """The rows of a file, with their ids: JSONL if it ends in .jsonl or .ndjson, else text with a prompt a line.

    A line of JSONL is an object with `prompt` and, if wanted, `id`, `cache` and any sampling parameter. Empty lines do
    not count.

    Raises:
        InputError: it cannot be read or has no prompts; or lines are wrong: all of them, with numbers and values.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the prompts {str(path)!r} cannot be read: {error}") from error
    rows, problems = [], Problems()
    as_json = path.suffix.lower() in _JSON_LINES
    for number, line in enumerate(lines, 1):
        if text := line.strip():
            place = f"{path.name}:{number}"
            with problems.noted(place):
                rows.append(row_of(_parsed(text), place) if as_json else _from_text(text, place))
    problems.raise_any()
    if not rows:
        raise InputError(f"{str(path)!r} has no prompts, one a line")
    return with_ids(rows)


def rows_from(items: Iterable[object]) -> list[PromptRow]:
    """Rows from Python, with their ids: each a `PromptRow`, a mapping as a line of JSONL is one, or a prompt.

    Raises:
        InputError: some of them are none of these, all of them are told; or there are none.
    """
    rows, problems = [], Problems()
    for number, item in enumerate(items):
        place = f"row {number}"
        with problems.noted(place):
            rows.append(row_of(item, place))
    problems.raise_any()
    if not rows:
        raise InputError("the list of rows is empty")
    return with_ids(rows)


def row_of(item: object, place: str) -> PromptRow:
    """One row; raises InputError if it is none."""
    if isinstance(item, PromptRow):
        if not isinstance(item.sampling, Mapping):
            raise InputError(f"sampling must hold sampling parameters by name, not {item.sampling!r}")
        values = {**item.sampling, "prompt": item.prompt, "id": item.id, "cache": item.cache}
        place = item.place or place
    elif isinstance(item, Mapping):
        values = dict(item)
    elif isinstance(item, str):
        values = {"prompt": item}
    else:
        raise InputError(f"a row is an object with a prompt, not {item!r}")
    if "prompt" not in values:
        raise InputError(f"there is no prompt in {item!r}")
    prompt, given, cache = check_prompt(values.pop("prompt")), values.pop("id", None), values.pop("cache", None)
    if not isinstance(cache, str | CachePolicy | None):
        raise InputError(f"cache must be the name of a caching policy, such as TEACACHE@0.2, not {cache!r}")
    for name in values:
        if name in _OF_THE_CALL:
            raise InputError(f"{name} is {values[name]!r}, but no row can have it: {_OF_THE_CALL[name]}")
    if isinstance(given_params := values.get("teacache_params"), Mapping):
        values["teacache_params"] = TeaCacheParams.from_values(_text_keys(given_params))
    SamplingParam().with_overrides(**_text_keys(values))
    return PromptRow(prompt, None if given is None else check_id(given), values, cache, place)


def with_ids(rows: list[PromptRow]) -> list[PromptRow]:
    """The rows with an id each: their own, or their prompt's, with a number if that is taken.

    Raises:
        InputError: two rows have one id; letters that differ in case are the same, as they are on some disks.
    """
    taken: dict[str, PromptRow] = {}
    problems = Problems()
    for row in rows:
        if row.id is not None and (first := taken.setdefault(row.id.casefold(), row)) is not row:
            with problems.noted(row.place):
                raise InputError(f"the id {row.id!r} is that of {first.place} already")
    problems.raise_any()
    numbers: dict[str, int] = {}
    named = []
    for row in rows:
        if row.id is None:
            row = _named(row, taken, numbers)
        named.append(row)
    return named


def _named(row: PromptRow, taken: dict[str, PromptRow], numbers: dict[str, int]) -> PromptRow:
    name = check_id(name_for(row.prompt))
    while True:
        number = numbers.get(name, 0)
        numbers[name] = number + 1
        chosen = f"{name}_{number}" if number else name
        if chosen.casefold() not in taken:
            taken[chosen.casefold()] = row
            return PromptRow(row.prompt, chosen, row.sampling, row.cache, row.place)


def _from_text(line: str, place: str) -> PromptRow:
    if line.startswith("{") and line.endswith("}"):
        raise InputError(f"{line!r} is JSON, but the file's name says text; end it in .jsonl")
    return PromptRow(check_prompt(line), place=place)


def _parsed(line: str) -> Any:
    try:
        value = json.loads(line, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{_shortened(line)} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"a row is an object with a prompt, not {_shortened(line)}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise InputError(f"{twice[0]!r} is given twice: {[value for name, value in pairs if name == twice[0]]}")
    return dict(pairs)


def _no_constant(name: str) -> NoReturn:
    raise InputError(f"{name} is no number")


def _text_keys(values: Mapping[Any, Any]) -> dict[str, Any]:
    for name in values:
        if not isinstance(name, str):
            raise InputError(f"{name!r} is no name of a sampling parameter")
    return dict(values)


def _shortened(line: str) -> str:
    return repr(line if len(line) <= 80 else f"{line[:79]}…")
