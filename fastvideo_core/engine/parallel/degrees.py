"""How many processes share what: tokens and heads (sequence), guidance branches (guidance); their product is all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastvideo_core.errors import InputError

AUTO = "auto"

Parallel: TypeAlias = "str | Mapping[str, int] | None"
"""What `attach(parallel=…)` takes."""

GUIDANCE_BRANCHES = 2


@dataclass(frozen=True)
class Degrees:
    """Into how many parts a run is cut.

    Attributes:
        sequence: parts of the video tokens, and around the kernels of the heads.
        guidance: 2 where each half of the processes computes one guidance branch, else 1.
        automatic: whether guidance may still turn out not to be there.
    """

    sequence: int
    guidance: int = 1
    automatic: bool = False

    def __str__(self) -> str:
        return f"guidance {self.guidance} x sequence {self.sequence}"


def read_degrees(parallel: Parallel, processes: int) -> Degrees | None:
    """What was asked for; None for "auto".

    Args:
        parallel: "auto", or degrees by name; what is not named is 1.

    Raises:
        InputError: it is neither, or the degrees do not multiply to the number of processes.
    """
    if parallel is None or parallel == AUTO:
        return None
    if not isinstance(parallel, Mapping):
        raise InputError(f"parallel is {parallel!r}, it must be {_FORM}")
    if unknown := sorted(map(str, set(parallel) - {"sequence", "guidance"})):
        raise InputError(f"parallel names {unknown[0]!r}; there are sequence and guidance: {_FORM}")
    degrees = Degrees(_whole(parallel, "sequence"), _whole(parallel, "guidance"))
    if degrees.guidance > GUIDANCE_BRANCHES:
        raise InputError(
            f"parallel guidance is {degrees.guidance}, it must be 1 or 2: there are two branches; the others go to "
            f"sequence: {{'sequence': {degrees.guidance * degrees.sequence // 2}, 'guidance': 2}}"
        )
    if degrees.sequence * degrees.guidance != processes:
        raise InputError(
            f"parallel asks for {degrees}, which is {degrees.sequence * degrees.guidance} processes, and there are "
            f"{processes}: start as many, or give degrees that multiply to {processes}"
        )
    return degrees


def automatic_degrees(processes: int, two_branches: bool) -> Degrees:
    """Guidance first, which sends least; the rest is sequence."""
    if two_branches and processes % GUIDANCE_BRANCHES == 0:
        return Degrees(processes // GUIDANCE_BRANCHES, GUIDANCE_BRANCHES, automatic=True)
    return Degrees(processes, 1, automatic=True)


_FORM = "'auto', or degrees by name such as {'sequence': 2, 'guidance': 2}"


def _whole(parallel: Mapping[str, Any], name: str) -> int:
    value = parallel.get(name, 1)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"parallel {name} is {value!r}, it must be a whole number from 1 on")
    return value
