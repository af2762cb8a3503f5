"""Run `fv`. Ctrl-C ends it in one line at any time, also while libraries are being imported."""

from __future__ import annotations

import _thread
import atexit
import gc
import os
import signal
import time
from types import FrameType
from typing import Any

INTERRUPTED = 130
"""The status of a program that Ctrl-C has ended."""


def main() -> None:
    """Run `fv`; raises SystemExit with its status."""
    # At its end Python would look for garbage in all of torch and diffusers once more: a second of a short run.
    atexit.register(gc.freeze)
    heeds = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # unlike with nohup
    if heeds:
        signal.signal(signal.SIGINT, _end_at_once)
    from fastvideo_core.cli import main as run

    try:
        if heeds:
            signal.signal(signal.SIGINT, _CtrlC())
        run()
    except KeyboardInterrupt:  # a second one, or between what handles it
        _end_at_once()
    finally:
        if heeds:
            signal.signal(signal.SIGINT, _end_at_once)
        exec("")  # where Ctrl-C came within an exec, CPython would end by the signal instead of with the status


class _CtrlC:
    """Raises KeyboardInterrupt, but not in an import, after which libraries go on, damaged; nor in a `__del__`, which
    ignores it.

    Pressed again while it waits for their end, it ends the program.
    """

    def __init__(self) -> None:
        self._waits = self._looks_again = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._waits and not self._looks_again:
            _end_at_once()
        self._waits, self._looks_again = _must_wait(frame), False
        if not self._waits:
            raise KeyboardInterrupt
        _thread.start_new_thread(self._look_again, ())

    def _look_again(self) -> None:
        time.sleep(0.02)
        self._looks_again = True
        _thread.interrupt_main()


def _must_wait(frame: FrameType | None) -> bool:
    while frame:
        code = frame.f_code
        if code.co_filename == "<frozen importlib._bootstrap>" or code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def _end_at_once(*_: Any) -> None:
    """End where nothing has been begun yet, all is done, or Ctrl-C was pressed twice."""
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
