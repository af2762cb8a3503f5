"""Run pytest on a file within a test, in this process and with the modules that are loaded.

pytest's own pytester takes back what a run has imported, and parts of torch cannot be imported twice.
"""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

_UNNEEDED = ("xdist", "cacheprovider", "hypothesispytest", "logging", "terminal", "unraisableexception")
"""The last collects garbage ten times at the end of each run: more than a second, with torch and diffusers loaded."""


class _Listener:
    def __init__(self) -> None:
        self.reports: list[pytest.TestReport] = []

    def pytest_addoption(self, parser: pytest.Parser) -> None:
        """The terminal's own option. Python's tracebacks: pytest's take longer than the tests that fail."""
        parser.addoption("--tb", dest="tbstyle", default="native")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)


def failures(folder: Path, source: str, *options: str) -> dict[str, str]:
    """Names of the tests that failed in a run of a file with this source, and why."""
    file = folder / f"test_{uuid4().hex}.py"  # another module each time
    file.write_text(source)
    quick = [
        "--assert=plain",
        "--import-mode=importlib",
        f"--rootdir={file.parent}",
        f"--basetemp={file.parent / 'inner'}",
    ]
    quick += [word for name in _UNNEEDED for word in ("-p", f"no:{name}")]
    listener = _Listener()
    pytest.main([*quick, *options, str(file)], plugins=[listener])
    assert listener.reports, "nothing was collected"
    failed = [report for report in listener.reports if report.failed]
    return {report.location[2].split(".")[1].partition("[")[0]: report.longreprtext for report in failed}
