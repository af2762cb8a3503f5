"""Which modules import which, by reading them: also in functions, relative, and for types alone."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

CORE = "fastvideo_core"
ROOMS = ("errors", "contract", "kernels", "discovery", "builtin", "engine", "testing", "app", "cli")
"""From the lowest to the highest."""

ROOT_FILES = {"__init__.py", "__main__.py", "py.typed", "errors.py"}
PUBLIC = {CORE, f"{CORE}.errors", f"{CORE}.kernels", f"{CORE}.testing"}


@dataclass(frozen=True)
class Import:
    """A module that is imported, perhaps for one name of it; `for_types` if only type checkers do."""

    module: str
    name: str | None
    line: int
    for_types: bool

    def of(self, modules: Iterable[str]) -> str:
        """The module that it comes to: what looks like a name may be one."""
        whole = f"{self.module}.{self.name}"
        return whole if whole in modules else self.module


@dataclass(frozen=True)
class Module:
    """A module, the file that it is in, and what it imports."""

    name: str
    path: Path
    imports: tuple[Import, ...]


def modules_below(folder: Path, package: str = "") -> dict[str, Module]:
    """All modules of the packages, or of one, and all scripts, that lie in a folder itself."""
    found = {}
    for path in sorted((folder / package).rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        tree = ast.parse(path.read_text("utf-8"))
        inside = name if is_package else name.rpartition(".")[0]
        found[name] = Module(name, path, tuple(_imports(tree, inside, for_types=False)))
    return found


def _imports(node: ast.AST, package: str, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        types = for_types or (
            isinstance(node, ast.If) and child in node.body and "TYPE_CHECKING" in ast.dump(node.test)
        )
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, None, child.lineno, types) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = _absolute(child, package)
            yield from (Import(module, alias.name, child.lineno, types) for alias in child.names)
        elif isinstance(child, ast.Call) and (named := _named_as_text(child)):
            yield Import(named, None, child.lineno, types)
        yield from _imports(child, package, types)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, *filter(None, [node.module])])


def _named_as_text(call: ast.Call) -> str | None:
    """The module of import_module("…") or __import__("…")."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if function not in ("import_module", "__import__") or not call.args or not isinstance(call.args[0], ast.Constant):
        return None
    return str(call.args[0].value)


def upward(modules: Mapping[str, Module]) -> list[str]:
    """Imports of the core that do not run downwards. The root itself, which names what is public, is above all."""
    return [
        f"{module.name}:{one.line} imports {one.of(modules)}"
        for module in modules.values()
        for one in module.imports
        if one.module.partition(".")[0] == CORE and _height(module.name) < _height(one.of(modules))
    ]


def _height(module: str) -> int:
    room = module.split(".")[1:2]
    return ROOMS.index(room[0]) if room and room[0] in ROOMS else len(ROOMS)


def weighs_on_contract(modules: Mapping[str, Module]) -> list[str]:
    """What the contract imports of torch when it runs, or of the core beside itself and the errors."""
    inside = (f"{CORE}.contract", f"{CORE}.errors")
    return [
        f"{module.name}:{one.line} imports {one.module}"
        for module in modules.values()
        if module.name.startswith(inside)
        for one in module.imports
        if (one.module.split(".")[0] == "torch" and not one.for_types)
        or (one.module.split(".")[0] == CORE and not one.of(modules).startswith(inside))
    ]


def circle(modules: Mapping[str, Module]) -> list[str]:
    """Modules that import one another, the first of them twice; none if there are none."""
    graph = {name: {one.of(modules) for one in module.imports} & modules.keys() for name, module in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def inner_names(modules: Iterable[Module], public: Mapping[str, Iterable[str] | None]) -> list[str]:
    """Imports of the core that are no public names.

    Args:
        public: the names of each public module; None for all that do not begin with an underscore.
    """
    return [
        f"{module.path}:{one.line} imports {one.module}" + (f".{one.name}" if one.name else "")
        for module in modules
        for one in module.imports
        if one.module.split(".")[0] == CORE and not _is_public(one, public)
    ]


def _is_public(one: Import, public: Mapping[str, Iterable[str] | None]) -> bool:
    if one.module not in public:
        return False
    if one.name is None or f"{one.module}.{one.name}" in public:
        return True
    names = public[one.module]
    return not one.name.startswith("_") if names is None else one.name in names
