"""Which part of the rows a process works through."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from fastvideo_core.errors import InputError


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, from 1; every `count`-th row is in it."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """I/N; None is the whole.

        Raises:
            InputError: it is of another form, or there is no such part.
        """
        if text is None:
            return cls()
        found = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text)
        if not found:
            raise InputError(f"--shard {text!r} is not I/N, such as 1/4 for the first of four parts")
        number, count = int(found[1]), int(found[2])
        if not 1 <= number <= count:
            raise InputError(
                f"--shard {text!r}: parts are counted from 1/{max(count, 1)} to {max(count, 1)}/{max(count, 1)}"
            )
        return cls(number, count)

    @property
    def suffix(self) -> str:
        """What file names of this part have more than those of the whole."""
        return "" if self.count == 1 else f"-{self.number}-of-{self.count}"
