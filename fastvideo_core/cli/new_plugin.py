"""`fv plugins new`: a distribution with a plugin that works, to begin with."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

import click

from fastvideo_core.cli.output import discovered, say
from fastvideo_core.contract.hookspecs import API_VERSION
from fastvideo_core.discovery.environment import normalize_backend_name
from fastvideo_core.discovery.plugins import CORE_DISTRIBUTION, Plugins, own_version
from fastvideo_core.errors import InputError, OutputError

_KINDS = {
    "attention": ("an attention backend", "FASTVIDEO_ATTENTION_BACKEND"),
    "cache": ("a caching policy", "FASTVIDEO_CACHE_POLICY"),
    "family": ("a model family", ""),
}


@dataclass(frozen=True)
class Names:
    """How one thing is called where, from the name of its distribution.

    Attributes:
        chosen: the name of what it provides, if that is to be another.
    """

    distribution: str
    chosen: str | None = None

    @property
    def module(self) -> str:
        return self.distribution.replace("-", "_")

    @property
    def plugin(self) -> str:
        """Without the prefix that packages of this kind have."""
        return self.distribution.removeprefix("fv-")

    @property
    def provided(self) -> str:
        return normalize_backend_name(self.chosen) or self.plugin.replace("-", "_").upper()

    @property
    def class_name(self) -> str:
        return "".join(part.capitalize() for part in self.provided.split("_"))


@click.command("new")
@click.argument("distribution")
@click.option("--attention", "kind", flag_value="attention", default=True, help="An attention backend (the default).")
@click.option("--cache", "kind", flag_value="cache", help="A caching policy.")
@click.option("--family", "kind", flag_value="family", help="A model family.")
@click.option("--name", help="Of the backend or policy, such as MYKERNEL. Default: the distribution's.")
@click.option(
    "--into", type=click.Path(path_type=Path), default=Path(), help="Where to make its folder. Default: here."
)
def new_command(distribution: str, kind: str, name: str | None, into: Path) -> None:
    """Make a folder DISTRIBUTION, such as fv-mykernel, with a complete plugin of pure torch and its tests."""
    names = check_name(distribution, discovered(), name, kind)
    folder = into / names.distribution
    write_plugin(names, kind, folder)
    variable = _KINDS[kind][1]
    say(f"{folder}: a plugin that provides {names.provided}. Try it:\n")
    say(f"    cd {folder}\n    pip install -e '.[test]'\n    pytest")
    if variable:
        say(f'    {variable}={names.provided} fv generate "a red circle moving left on a white background"')


def check_name(distribution: str, plugins: Plugins, name: str | None = None, kind: str = "attention") -> Names:
    """The names that follow from a distribution's.

    Raises:
        InputError: it is no name for a distribution, or what it would provide is installed already.
    """
    names = Names(re.sub(r"[-_.]+", "-", distribution.strip()).lower(), name)
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", names.distribution) or not names.plugin[:1].isalpha():
        raise InputError(
            f"{distribution!r} is no name for a plugin; take letters, digits and dashes, such as fv-mykernel"
        )
    if not re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", names.provided) or names.provided == "NONE":
        raise InputError(
            f"{names.provided} cannot be asked for by name; give another with --name, of letters and underscores"
        )
    if names.provided in (*plugins.backend_names(), *plugins.policy_names()):
        raise InputError(f"{names.provided} is installed already; choose another name than {name or distribution!r}")
    if iskeyword(names.module) or find_spec(names.module) is not None:
        raise InputError(
            f"Python has something else called {names.module}; choose another name than {distribution!r}, such as "
            f"fv-my-{names.plugin}"
        )
    if iskeyword(names.class_name) or re.search(rf"\b{names.class_name}\b", _template(f"{kind}.py.txt")):
        raise InputError(
            f"a class {names.class_name} would hide something of that name in the plugin's module; give another name "
            f"with --name, such as MY_{names.provided}"
        )
    return names


def _template(name: str) -> str:
    return (files("fastvideo_core.cli") / "template" / name).read_text("utf-8")


def write_plugin(names: Names, kind: str, folder: Path) -> None:
    """Write all files of the plugin.

    Raises:
        OutputError: the folder is there already, or cannot be written.
    """
    major, minor = _core_series()
    values = {
        "distribution": names.distribution,
        "module": names.module,
        "plugin": names.plugin,
        "provided": names.provided,
        "class_name": names.class_name,
        "kind": _KINDS[kind][0],
        "variable": _KINDS[kind][1],
        "api_version": API_VERSION,
        "core": f"{major}.{minor}",
        "next_core": f"{major}.{minor + 1}",
    }
    contents = {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "README_family.md.txt" if kind == "family" else "README.md.txt",
        f"{names.module}/__init__.py": f"{kind}.py.txt",
        f"tests/test_{names.module}.py": f"test_{kind}.py.txt",
    }
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise OutputError(f"{str(folder)!r} is there already; choose another name or --into another folder") from error
    except OSError as error:
        raise OutputError(f"{str(folder)!r} cannot be made: {error}; choose another folder with --into") from error
    try:
        for path, template in contents.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(Template(_template(template)).substitute(values), "utf-8")
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, OSError):  # such as Ctrl-C
            raise
        raise OutputError(f"{str(folder)!r} cannot be written: {error}; free some space, or choose --into") from error


def _core_series() -> tuple[int, int]:
    """Major and minor version of the core that is running."""
    found = re.match(r"(\d+)\.(\d+)", own_version())
    if found is None:
        raise InputError(f"the version of {CORE_DISTRIBUTION} is unknown: install it, such as with pip install -e .")
    return int(found[1]), int(found[2])
