"""Outputs that are closed or full, and Ctrl-C: a line, a status, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

posix = pytest.mark.skipif(os.name == "nt", reason="the shell and the signals are those of POSIX")

COMMANDS = ["plugins", "plugins --json", "--help", "plugins new fv-mine"]

CLOSED = "standard output is closed, so nothing can be printed; send it to a file"


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command; `fv` is that of this interpreter."""
    line = command.replace("fv ", f"{sys.executable} -m fastvideo_core ", 1)
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)


@posix
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("> /dev/full", "standard output cannot be written to: No space left on device"),
        (">&-", CLOSED),
        ("| true; exit ${PIPESTATUS[0]}", "standard output cannot be written to: Broken pipe"),
    ],
)
def test_an_output_that_takes_nothing(command: str, output: str, message: str) -> None:
    if "/dev/full" in output and not Path("/dev/full").exists():
        pytest.skip("the system has no device that is always full")
    # The pipe's other end must be gone before anything is printed.
    done = shell(f"{{ sleep 0.1; fv {command}; }} {output}" if "|" in output else f"fv {command} {output}")
    assert (done.returncode, done.stderr) == (1, f"Error: {message}\n")


@posix
@pytest.mark.parametrize(("command", "status"), [("plugins", 0), ("generate x --nosuch", 2), ("plugins new 1bad/x", 1)])
@pytest.mark.parametrize("output", ["2>&-", "2>/dev/full"])
def test_an_error_stream_that_takes_nothing(command: str, status: int, output: str) -> None:
    done = shell(f"fv {command} {output}")
    assert (done.returncode, done.stderr) == (status, "")
    assert "Traceback" not in done.stdout


HEARD = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
"""As Python begins, unless Ctrl-C is ignored where these tests were started, as it is behind `&` in a script."""

PRESSED = """
import os, signal, sys

class Pressing:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            for _ in range({times}):
                os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Pressing())
sys.argv = ["fv", *{arguments!r}]
from fastvideo_core.__main__ import main
main()
"""


@posix
@pytest.mark.parametrize(
    ("module", "times"),
    [
        ("click", 1),
        ("fastvideo_core.cli", 1),
        ("fastvideo_core.discovery.plugins", 1),
        pytest.param("torch", 2, marks=pytest.mark.slow),
        pytest.param("numpy", 1, marks=pytest.mark.slow),  # torch imports it, and goes on where that fails
        pytest.param("diffusers", 1, marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_in_an_import(module: str, times: int, tmp_path: Path) -> None:
    arguments = ["generate", "cat", "--steps", "1", "--frames", "5", "--output", str(tmp_path / "out")]
    program = HEARD + PRESSED.format(module=module, times=times, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.*"))


IN_DEL = """
import os, signal, time
from fastvideo_core.__main__ import _CtrlC

class Held:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        print("deleted", flush=True)

signal.signal(signal.SIGINT, _CtrlC())
try:
    Held()
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted")
"""


@posix
def test_ctrl_c_in_a_del_comes_after_it() -> None:
    done = subprocess.run([sys.executable, "-c", IN_DEL], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["deleted", "interrupted"], "")


@posix
def test_ctrl_c_is_ignored_where_it_is_to_be() -> None:
    program = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)" + PRESSED.format(
        module="click", times=1, arguments=["plugins"]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "TORCH_SDPA" in done.stdout
