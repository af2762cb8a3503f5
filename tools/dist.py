"""Build every distribution and check it: python tools/dist.py build dist; python tools/dist.py version 0.3.0.

The version in the root's pyproject.toml is that of all of them; plugins take any core of the same series (0.2.x).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parent.parent
CORE = "fastvideo-core"
CORE_WHEEL_BYTES = 400_000
"""What the core's wheel may have at most."""

UNWANTED = re.compile(r"(^|/)(tests?|train|runs|benchmarks|__pycache__)/")


def projects() -> list[Path]:
    """The folders of all distributions, the core's first."""
    return [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


def read(project: Path) -> dict[str, Any]:
    """The [project] table."""
    table: dict[str, Any] = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def bounds(version: str) -> str:
    """What a plugin of that version says of the core."""
    major, minor = map(int, version.split(".")[:2])
    return f"{CORE}>={major}.{minor},<{major}.{minor + 1}"


def version_problems() -> Iterator[str]:
    """Where versions or bounds do not agree with the core's version."""
    version = read(ROOT)["version"]
    for project in projects()[1:]:
        table = read(project)
        if table["version"] != version:
            yield f"{table['name']} has version {table['version']}, {CORE} has {version}"
        if bounds(version) not in table["dependencies"]:
            yield f"{table['name']} does not ask for {bounds(version)}"


def set_version(version: str) -> None:
    """Write the version, and the bounds that follow from it, into every pyproject.toml."""
    for project in [*projects(), *(path.parent for path in ROOT.glob("examples/plugins/*/pyproject.toml"))]:
        path = project / "pyproject.toml"
        text = re.sub(r'(?m)^version = "[^"]*"$', f'version = "{version}"', path.read_text("utf-8"), count=1)
        text = re.sub(rf'"{CORE}>=[\d.]+,<[\d.]+"', f'"{bounds(version)}"', text)
        pinned = f'"fv-shapes{bounds(version).removeprefix(CORE)}"'
        path.write_text(re.sub(r'"fv-shapes>=[\d.]+,<[\d.]+"', pinned, text), "utf-8")


def build(into: Path) -> list[Path]:
    """An sdist of each distribution and, from that, its wheel."""
    for project in projects():
        hatchling = [sys.executable, "-m", "hatchling", "build", "-d", str(into.resolve())]
        done = subprocess.run(hatchling, cwd=project, capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(f"{project.name} cannot be built:\n{done.stdout}{done.stderr}")
    return sorted([*into.glob("*.whl"), *into.glob("*.tar.gz")])


def problems_of(path: Path) -> Iterator[str]:
    """What is in a built file that should not be, and what is not there."""
    if path.suffix == ".whl":
        names = zipfile.ZipFile(path).namelist()
        wanted = {"py.typed": r"^\w+/py\.typed$", "a licence": r"\.dist-info/licenses/LICENSE$"}
        if path.name.startswith("fastvideo_core-") and path.stat().st_size > CORE_WHEEL_BYTES:
            yield f"{path.name} has {path.stat().st_size:,} bytes, at most {CORE_WHEEL_BYTES:,} are allowed"
    else:
        with tarfile.open(path) as archive:
            names = archive.getnames()
        wanted = {"README.md": r"^[^/]+/README\.md$", "a licence": r"^[^/]+/LICENSE$"}
    yield from (f"{path.name} holds {name}" for name in names if UNWANTED.search(name))
    for what, pattern in wanted.items():
        if not any(re.search(pattern, name) for name in names):
            yield f"{path.name} lacks {what}"


@click.group()
def main() -> None:
    """Versions and builds of all distributions."""


@main.command("version")
@click.argument("version")
def version_command(version: str) -> None:
    """Give all distributions a VERSION, and the bounds that go with it."""
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", version):
        raise click.ClickException(f"{version!r} is no version, such as 0.2.0")
    set_version(version)


@main.command("build")
@click.argument("into", type=click.Path(path_type=Path))
def build_command(into: Path) -> None:
    """Build into an empty folder, check contents and metadata, and list what was made."""
    if into.exists() and any(into.iterdir()):
        raise click.ClickException(f"{str(into)!r} is not empty; remove it first")
    problems = list(version_problems())
    made = [] if problems else build(into)
    problems += [problem for path in made for problem in problems_of(path)]
    if problems:
        raise click.ClickException("\n".join(problems))
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, made)], check=True)
    for path in made:
        click.echo(f"{path.stat().st_size:>12,}  {path}")


if __name__ == "__main__":
    main()
