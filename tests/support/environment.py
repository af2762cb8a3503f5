"""Build third-party distributions and install them into a virtual environment, as their users would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "{version}"

[project.entry-points.fastvideo]
{plugin} = "{module}"

[tool.hatch.build.targets.wheel]
packages = ["{module}"]
"""

BACKEND = """
from fastvideo_core import AttentionBackend, Capabilities, Probe, Role, hookimpl

api_version = 2


class Double(AttentionBackend):
    name = "{backend}"
    capabilities = Capabilities(roles=frozenset({{Role.SELF}}), lossless=False)

    def probe(self):
        return Probe(True, kernel="a test", version="{version}")

    def load(self):
        from torch.nn.functional import scaled_dot_product_attention as sdpa

        def attend(query, key, value, call):
            return sdpa(*(x.transpose(1, 2) for x in (query, key, 2 * value)), scale=call.scale).transpose(1, 2)

        return attend


@hookimpl
def fastvideo_attention_backends():
    return [Double()]
"""
"""A plugin whose attention is visibly not torch's own: it doubles the values."""


_EACH = """
import json
from pathlib import Path
from click.testing import CliRunner
from fastvideo_core.cli import fv

ran = [CliRunner(env=variables).invoke(fv, arguments) for arguments, variables in json.loads({commands!r})]
found = [[one.exit_code, one.stdout, one.stderr] for one in ran]
Path({results!r}).write_text(json.dumps(found))
"""


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Environment:
    """A virtual environment in `folder`."""

    folder: Path

    def install(self, name: str, source: str, plugin: str = "double", version: str = "1.2.3") -> None:
        """Build a wheel of one module with this source, and install it."""
        module = name.replace("-", "_")
        project = self.folder / "src" / name
        (project / module).mkdir(parents=True, exist_ok=True)
        (project / module / "__init__.py").write_text(source)
        (project / "pyproject.toml").write_text(
            PYPROJECT.format(name=name, version=version, plugin=plugin, module=module)
        )
        self.install_projects(project)

    def install_projects(self, *projects: Path, target: Path | None = None) -> None:
        """Build a wheel of each project, and install them; into a folder of their own if one is given."""
        for project in projects:
            _check([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(project / "dist")], project)
        self.install_wheels(*(wheel for project in projects for wheel in project.glob("dist/*.whl")), target=target)

    def install_wheels(self, *wheels: Path, target: Path | None = None) -> None:
        """Install wheels that are built already; one of another version replaces what is there."""
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "--python", str(self.python)]
        options = ["--no-index", "--no-deps", *(["--target", str(target)] if target else [])]
        _check([*pip, "install", *options, *map(str, wheels)])

    def uninstall(self, *names: str) -> None:
        """Remove distributions again."""
        _check([sys.executable, "-m", "pip", "-q", "--python", str(self.python), "uninstall", "-y", *names])

    @property
    def site(self) -> Path:
        """Where packages are installed to."""
        command = [str(self.python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def run(self, code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run Python there."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [str(self.python), "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
        )

    def fv_each(self, *commands: tuple[tuple[str, ...], dict[str, str]], cwd: Path) -> list[Ran]:
        """Run `fv` with these arguments and variables, one after the other in one process: importing torch is slow."""
        results = cwd / "results.json"
        done = self.run(_EACH.format(commands=json.dumps(commands), results=str(results)), cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return [Ran(*one) for one in json.loads(results.read_text())]

    def fv(self, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `fv` there."""
        command = [str(self.python), "-m", "fastvideo_core", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)


def build_environment(folder: Path) -> Environment:
    """Create an environment that also sees the packages of the running one, editable installs included."""
    return _build(folder, "(pip|__pycache__)")


def build_bare_environment(folder: Path) -> Environment:
    """Create an environment that sees the third-party packages of the running one, and nothing of this project."""
    return _build(folder, r"(.*\.pth$|__editable__|_?_?fastvideo|_?fv_|pip\b|__pycache__)")


def _build(folder: Path, left_out: str) -> Environment:
    venv.create(folder / "venv", with_pip=False)
    environment, libraries = Environment(folder / "venv"), folder / "libraries"
    libraries.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.match(left_out, entry.name):
            (libraries / entry.name).symlink_to(entry)
    (environment.site / "libraries.pth").write_text(f"import site; site.addsitedir({str(libraries)!r})\n")
    return environment


def _check(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
