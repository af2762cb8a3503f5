"""The pytest plugin behind `pytest --fv-backend NAME`. Loaded by every pytest run, so it imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

import pytest

_CONFORMANCE = Path(__file__).parent / "conformance.py"

named_backend = ""
"""The backend that this run of pytest was given."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("fastvideo").addoption(
        "--fv-backend",
        metavar="NAME",
        help="Run fastvideo-core's suite on this installed attention backend, instead of the tests that are "
        "configured; with paths on the command line, besides those.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    global named_backend
    if not config.getoption("--fv-backend"):
        return
    named_backend = _check(config.getoption("--fv-backend"))
    given = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
    config.args = [*given, str(_CONFORMANCE)]


def _check(name: str) -> str:
    from fastvideo_core.discovery.environment import normalize_backend_name
    from fastvideo_core.discovery.plugins import load_plugins
    from fastvideo_core.engine.attention.resolve import find_backend
    from fastvideo_core.errors import FastVideoError

    try:
        return find_backend(load_plugins(), normalize_backend_name(name) or name, "--fv-backend")[0].name
    except FastVideoError as error:
        raise pytest.UsageError(str(error)) from error
