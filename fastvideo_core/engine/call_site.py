"""Which call of a pipeline a piece of code runs in: found on the stack, since diffusers hands nothing down."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Self

_OWN = __name__.partition(".")[0]


@dataclass(frozen=True)
class CallSite:
    """A thread and a frame of it.

    A frame is known by its number: holding the frame itself would keep all its tensors alive.
    """

    thread: int
    frame: int | None
    code: CodeType | None

    @classmethod
    def of_pipeline(cls) -> Self:
        """The innermost call of a pipeline; no frame where there is none, such as in a loop of the user's own."""
        return cls._first(lambda frame: frame.f_code.co_qualname.endswith("Pipeline.__call__"))

    @classmethod
    def of_caller(cls) -> Self:
        """The innermost code that is neither the core's nor that of a context manager's helper."""
        return cls._first(lambda frame: _package(frame) not in (_OWN, "contextlib"))

    @classmethod
    def _first(cls, fits: Callable[[FrameType], bool]) -> Self:
        found = next(filter(fits, _outwards(sys._getframe(2))), None)
        return cls(threading.get_ident(), found and id(found), found and found.f_code)

    def is_live(self) -> bool:
        """Whether that frame is still running."""
        # Never this method's own frame: a frame that is one of its own variables is only ever freed by the collector.
        own = self.thread == threading.get_ident()
        frame = sys._getframe(1) if own else sys._current_frames().get(self.thread)
        return any(id(one) == self.frame and one.f_code is self.code for one in _outwards(frame))

    def __str__(self) -> str:
        if self.thread == threading.get_ident():
            return "this thread"
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return f"the thread {names.get(self.thread, self.thread)}"


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
