"""Copies of what is attached are made as if it was not: a deepcopy or a pickle bears no trace of the core."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any


def copied_as(target: Any, state: Callable[[], dict[str, Any]], undo: ExitStack) -> None:
    """Have deepcopy and pickle make copies of the target from `state()`, until `undo` is closed.

    Both ask the object itself for `__reduce_ex__`, so an attribute of the instance answers for this one object alone.

    Args:
        state: the instance's attributes as they were before anything of them was changed.
    """

    def reduce_ex(protocol: int) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(target),), state()  # type: ignore[attr-defined]  # typeshed leaves it out

    vars(target)["__reduce_ex__"] = reduce_ex
    undo.callback(vars(target).pop, "__reduce_ex__", None)


def without(target: Any, names: dict[str, Any]) -> dict[str, Any]:
    """The instance's attributes with the named ones as given, or left out where that is `ABSENT`."""
    state = {name: value for name, value in vars(target).items() if name != "__reduce_ex__"}
    for name, value in names.items():
        if value is ABSENT:
            state.pop(name, None)
        else:
            state[name] = value
    return state


ABSENT = object()
"""Stands for an attribute that the instance did not have."""
