"""The files of a model's parts: what can be said of them before, and after, a library could not read them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvideo_core.discovery.printable import explain
from fastvideo_core.errors import ModelNotFoundError

_WITHOUT_VOCABULARY = frozenset({"ByT5Tokenizer"})
"""Tokenizers that know bytes alone."""
_VOCABULARIES = ("tokenizer.json", "spiece.model", "tokenizer.model", "vocab.json", "vocab.txt")


def check_files(folder: Path, index: Mapping[str, Any]) -> None:
    """Refuse JSON files that are none, and parts that lack what each of their kind has.

    Args:
        folder: the pipeline's, in diffusers format.
        index: the content of its model_index.json.

    Raises:
        ModelNotFoundError: with the name of the file.
    """
    for name, entry in index.items():
        part = folder / name
        if not isinstance(entry, list | tuple) or not part.is_dir():
            continue
        for file in sorted(part.glob("*.json")):
            _check_json(file)
        kind = str(entry[-1])
        needs_vocabulary = "Tokenizer" in kind and kind not in _WITHOUT_VOCABULARY
        if needs_vocabulary and not any((part / one).is_file() for one in _VOCABULARIES):
            raise _lacking(part, kind, "tokenizer.json, nor another file with a vocabulary")
        if any(part.glob("*.safetensors")) and not (part / "config.json").is_file():
            raise _lacking(part, kind, "config.json")


def variant_of(part: Path, dtype: str) -> str | None:
    """Which variant of its weights a part has, where it has no plain ones: such as "fp16" of model.fp16.safetensors.

    Args:
        dtype: what they are loaded in, such as "bfloat16"; of several variants that one is taken, else the first.
    """
    found = set()
    for file in part.glob("*.safetensors"):
        stem = re.sub(r"-\d{5}-of-\d{5}$", "", file.name.removesuffix(".safetensors"))
        name, _, variant = stem.rpartition(".")
        if not name:
            return None
        found.add(variant)
    usual = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(dtype, "")
    return usual if usual in found else min(found, default=None)


def explain_failure(folder: Path, error: Exception) -> str:
    """What a library says of a part, in one line."""
    plain = isinstance(error, OSError | ValueError) and str(error)
    text = (" ".join(str(error).split()) if plain else explain(error)).rstrip(".")
    return text if str(folder) in text else f"{text}, in a file of {str(folder)!r}"


def _check_json(file: Path) -> None:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelNotFoundError(f"{str(file)!r} cannot be read: {explain(error)}; get the model again") from error
    needed = {"tokenizer.json": "model"}.get(file.name)
    if not isinstance(content, dict) or (needed and needed not in content):
        raise ModelNotFoundError(
            f"{str(file)!r} holds no JSON object{f' with {needed!r}' if needed else ''}; get the model again"
        )


def _lacking(part: Path, kind: str, file: str) -> ModelNotFoundError:
    there = ", ".join(sorted(one.name for one in part.iterdir())) or "nothing"
    return ModelNotFoundError(f"{str(part)!r}, a {kind}, has no {file}; there is {there}; get the model again")
