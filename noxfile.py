"""What the workflows run, here: nox -l lists the sessions, nox -s "tests(3.12-torch2.13-diffusers0.42)" runs one.

The combinations are those of .github/workflows/checks.yml; a test holds the two together. Each session has an
environment of its own, with the versions of constraints.txt but for what it varies.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "docs"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
NEWEST = "newest"
MATRIX = (
    ("3.11", "2.9", "0.40"),
    ("3.11", "2.11", "0.41"),
    ("3.11", "2.13", "0.42"),
    ("3.12", "2.13", "0.42"),
    ("3.13", "2.13", "0.42"),
    ("3.13", NEWEST, "0.42"),
)
"""Python, torch, diffusers."""

DISTRIBUTIONS = [
    str(path.parent.relative_to(ROOT))
    for kind in ("plugins", "examples/plugins")
    for path in sorted(ROOT.glob(f"{kind}/*/pyproject.toml"))
]


def install(session: nox.Session, torch: str = "", diffusers: str = "") -> None:
    """All distributions in editable form, with the tools."""
    varied = {"torch": torch, "torchao": torch, "diffusers": diffusers}
    kept = [
        line
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if not varied.get(line.partition("==")[0])
    ]
    wanted = [f"{name}=={version}.*" for name, version in (("torch", torch), ("diffusers", diffusers)) if version]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(kept), "utf-8")
        session.install("-c", str(constraints), "hatchling", "editables")
        editable = [part for one in (".[dev]", *DISTRIBUTIONS) for part in ("-e", one)]
        chosen = [one for one in wanted if NEWEST not in one]
        session.install("--no-build-isolation", "-c", str(constraints), *chosen, *editable)


@nox.session(python="3.11")
def lint(session: nox.Session) -> None:
    """Formatting and lint."""
    session.install("-c", "constraints.txt", "ruff")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session(python="3.11")
def types(session: nox.Session) -> None:
    """mypy in strict mode."""
    install(session)
    session.run("mypy")


@nox.session
@nox.parametrize(
    "python,torch,diffusers",
    [nox.param(*one, id="{}-torch{}-diffusers{}".format(*one)) for one in MATRIX],
)
def tests(session: nox.Session, torch: str, diffusers: str) -> None:
    """The tests, with these versions; what follows `--` goes to pytest."""
    install(session, torch, diffusers)
    session.run(
        "python", "-c", "import sys, torch, diffusers; print(sys.version, torch.__version__, diffusers.__version__)"
    )
    session.run("pytest", "-q", "-n", "auto", "--dist", "worksteal", *session.posargs)


@nox.session(python="3.11")
def docs(session: nox.Session) -> None:
    """The documentation, in site/."""
    install(session)
    session.run("sphinx-build", "-W", "--keep-going", "-q", "docs", "site")


@nox.session(python="3.11")
def wheels(session: nox.Session) -> None:
    """An sdist and a wheel of each distribution, checked, in dist/."""
    session.install("-c", "constraints.txt", "hatchling", "click", "twine")
    session.run("python", "tools/dist.py", "build", "dist")
