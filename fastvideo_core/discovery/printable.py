"""Text of plugins, prompts and errors, as a terminal may have it: without what would steer the terminal."""

from __future__ import annotations

import unicodedata

_LONGEST = 2000
_STEERING = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Separators of lines and marks of direction, which make a line read as what it is not."""


def printable(text: str) -> str:
    """The text without control characters other than line breaks and tabs, and without halves of characters."""
    if text.isprintable():  # nothing that steers is; most texts are, and this is read for every plugin
        return text
    return "".join(letter for letter in text if letter in "\n\t" or not _steers(letter))


def explain(error: BaseException) -> str:
    """The kind and the message of an error in one line, also of one that cannot be printed."""
    kind = type.__dict__["__name__"].__get__(type(error))  # a metaclass may have another
    try:
        message = f"{kind}: {error}"
    except BaseException as another:
        message = (
            f"{kind} (its message cannot be printed: it raises {type.__dict__['__name__'].__get__(type(another))})"
        )
    line = " ".join(printable(message).split())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"


def _steers(letter: str) -> bool:
    return letter in _STEERING or unicodedata.category(letter) in ("Cc", "Cs")
