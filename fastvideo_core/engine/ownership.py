"""Who owns a pipeline and its transformers. What attach changes belongs to them, so each has one owner at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

from fastvideo_core.errors import AttachError

_lock = threading.Lock()
_owners: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def claim(targets: Iterable[Any], owner: str, undo: ExitStack) -> None:
    """Own all of the targets, or none, until `undo` is closed.

    Args:
        owner: what to call the owner in messages.

    Raises:
        AttachError: one of them has an owner.
    """
    targets = list(targets)
    with _lock:
        for target in targets:
            if target in _owners:
                raise AttachError(
                    f"this {type(target).__name__} is attached already; detach it first: it was attached with "
                    f"{_owners[target]}"
                )
        for target in targets:
            _owners[target] = owner
    undo.callback(_release, targets)


def _release(targets: list[Any]) -> None:
    with _lock:
        for target in targets:
            _owners.pop(target, None)
