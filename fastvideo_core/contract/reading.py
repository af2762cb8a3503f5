"""Read the value of a setting: one reader for all that declare settings, wherever the value comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastvideo_core.errors import InputError

_LONGEST = 200


@dataclass(frozen=True)
class GivenValue:
    """The value of a setting as somebody gave it, and by what, for messages and the receipt."""

    value: Any
    origin: str

    @property
    def shown(self) -> str:
        """The value for messages."""
        return shown(self.value)


@dataclass(frozen=True)
class Reader:
    """How the value of one setting is read.

    Attributes:
        name: the setting's.
        kind: the type of its field; None if it is parsed.
        default: what it is if nobody gives it; where that is None, `none` can be given too.
        help: what it does.
        limits: of a number, as pydantic names them.
        parse: makes the value from what was given, in place of the type.
    """

    name: str
    kind: Any
    default: Any
    help: str
    limits: Mapping[str, Any]
    parse: Callable[[Any], Any] | None

    def read(self, given: GivenValue) -> Any:
        """The value.

        Raises:
            InputError: it is not what the setting takes, or not finite.
        """
        from pydantic import ValidationError

        value = given.value.strip() if isinstance(given.value, str) else given.value
        try:
            result = self._result(value)
            if _is_finite(result):
                return result
            problem = "it must be finite"
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            problem = f"{problem[:1].lower()}{problem[1:]}"
        except (ValueError, OverflowError, RecursionError) as error:
            problem = str(error)
        except Exception as error:  # of a parser that expects text, or something else than this
            of_text = f"it cannot be read ({error!r})"
            problem = of_text if isinstance(value, str) else f"it cannot be of type {type(value).__name__}"
        raise InputError(f"{given.origin} is {given.shown}: {problem}; it sets {self.name}: {self.help}")

    def _result(self, value: Any) -> Any:
        if self.default is None and (value is None or (isinstance(value, str) and value.lower() == "none")):
            return None
        if self.parse is not None:
            return self.parse(value)
        from pydantic import Field, TypeAdapter

        # A number in Python is what it is: pydantic would else take True for 1, and 1 for True.
        strict = isinstance(value, bool | int | float)
        limited: Any = Annotated[self.kind, Field(**dict(self.limits))]
        adapter: TypeAdapter[Any] = TypeAdapter(limited)
        return adapter.validate_python(value, strict=strict)


def _is_finite(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def shown(value: Any) -> str:
    """A value for messages, in quotes and in one line; also one that cannot be printed."""
    try:
        text = value if isinstance(value, str) else " ".join(str(value).split())
    except Exception as error:
        text = f"a {type(value).__name__} whose text raises {type(error).__name__}"
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def as_text(value: Any) -> str:
    """A value as it would be given."""
    if isinstance(value, list | tuple):
        return ",".join(map(as_text, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
