"""Ask a backend, whose author may have made mistakes, and take only what the contract allows for an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fastvideo_core.contract.attention import AttentionBackend, Capabilities, MaskKind, Need, Probe, Role
from fastvideo_core.discovery.printable import explain
from fastvideo_core.errors import InputError, PluginError

Answer = TypeVar("Answer")


def ask(what: str, question: Callable[[], Answer], kind: type[Answer]) -> Answer:
    """What the question comes to.

    Args:
        what: what is asked for, for messages.
        kind: the class that an answer has.

    Raises:
        PluginError: it raises, or the answer is of another class.
        KeyboardInterrupt, InputError: it raises that: both are the user's.
    """
    try:
        answer = question()
        known = isinstance(answer, kind) and not (kind is int and isinstance(answer, bool))
        shown = "" if known else repr(answer)
    except (KeyboardInterrupt, InputError):  # the user's
        raise
    except BaseException as error:
        raise PluginError(f"its {what} raised {explain(error)}") from error
    if not known:
        raise PluginError(f"its {what} is {shown}, it must be {kind.__name__}")
    return answer


def probe_of(backend: AttentionBackend) -> Probe:
    """The backend's probe; one that raises, which none should, is an answer too."""
    try:
        return ask("probe", lambda: backend.probe(), Probe)
    except (PluginError, InputError) as error:
        return Probe(False, reason=str(error), remedy="Report it to the plugin's author", broken=True)


def capabilities_of(backend: AttentionBackend) -> Capabilities:
    """What it declares.

    Raises:
        PluginError: nothing that could be meant.
    """
    return ask("capabilities", lambda: _checked(backend.capabilities, backend.overflows_in), Capabilities)


def priority_of(backend: AttentionBackend, need: Need) -> int:
    """Its rank for automatic choice; raises as `capabilities_of` does."""
    return ask("automatic_priority", lambda: backend.automatic_priority(need), int)


def tell_device(backend: AttentionBackend, device: str) -> None:
    """Tell it where the model is, before it is asked anything; raises as `capabilities_of` does."""
    ask("device", lambda: setattr(backend, "device", device), type(None))


def _checked(can: Capabilities, overflows_in: object) -> Capabilities:
    sets = {"roles": (can.roles, Role), "masks": (can.masks, MaskKind), "overflows_in": (overflows_in, str)}
    optional = {"head_dims": (can.head_dims, int), "dtypes": (can.dtypes, str), "devices": (can.devices, str)}
    sets |= {name: (values, kind) for name, (values, kind) in optional.items() if values is not None}
    for name, (values, kind) in sets.items():
        if not isinstance(values, frozenset | set) or not all(isinstance(value, kind) for value in values):
            raise TypeError(f"{name} must be a frozenset of {kind.__name__}, not {values!r}")
    if not isinstance(can.lossless, bool):
        raise TypeError(f"lossless must be True or False, not {can.lossless!r}")
    return can
