"""The rooms of the core import downwards, nothing imports in a circle, and plugins use public names alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

import fastvideo_core
from fastvideo_core import testing
from tests.support.imports import (
    CORE,
    ROOMS,
    ROOT_FILES,
    circle,
    inner_names,
    modules_below,
    upward,
    weighs_on_contract,
)

ROOT = Path(__file__).parents[1]
OUTSIDE = [
    *(path.parent for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))),
    *(path.parent for path in sorted(ROOT.glob("examples/plugins/*/pyproject.toml"))),
    ROOT / "examples",
    ROOT / "benchmarks",
]
PUBLIC: dict[str, Iterable[str] | None] = {
    CORE: fastvideo_core.__all__,
    f"{CORE}.errors": None,
    f"{CORE}.kernels": None,
    f"{CORE}.testing": testing.__all__,
}


CORE_MODULES = modules_below(ROOT, CORE)


def test_the_rooms_import_downwards() -> None:
    assert {f"{CORE}.{room}" for room in ROOMS} <= CORE_MODULES.keys()
    assert upward(CORE_MODULES) == []


def test_the_contract_is_light() -> None:
    assert weighs_on_contract(CORE_MODULES) == []


def test_nothing_of_the_core_imports_in_a_circle() -> None:
    assert circle(CORE_MODULES) == []


@pytest.mark.parametrize("folder", OUTSIDE, ids=lambda path: path.name)
def test_what_is_outside_uses_public_names_and_imports_in_no_circle(folder: Path) -> None:
    modules = modules_below(folder)
    assert modules
    assert inner_names(modules.values(), PUBLIC) == []
    assert circle(modules) == []


def test_the_root_has_only_what_belongs_there() -> None:
    found = {path.name for path in (ROOT / CORE).iterdir() if path.is_file()}
    assert found == ROOT_FILES
    assert {path.name for path in (ROOT / CORE).iterdir() if path.is_dir()} - {"__pycache__"} <= set(ROOMS)


PLANTED = {
    "at the top": ("contract/attention.py", "from fastvideo_core.engine.run import ActiveRun"),
    "in a function": ("builtin/plain.py", "def f():\n    import fastvideo_core.engine.run"),
    "for types": ("engine/run.py", "if TYPE_CHECKING:\n    from fastvideo_core.app import generator"),
    "relative": ("discovery/plugins.py", "from ..engine.run import ActiveRun"),
    "a module as a name": ("kernels.py", "from fastvideo_core import engine"),
    "as text": ("engine/run.py", "import_module('fastvideo_core.cli.options')"),
    "from the root": ("app/generator.py", "from fastvideo_core import attach"),
}


@pytest.mark.parametrize(("path", "line"), PLANTED.values(), ids=PLANTED)
def test_a_planted_import_upwards_is_found(tmp_path: Path, path: str, line: str) -> None:
    plant(tmp_path, "fastvideo_core/engine/run.py", "from fastvideo_core.contract import attention\nimport torch")
    assert upward(modules_below(tmp_path)) == []
    plant(tmp_path, f"fastvideo_core/{path}", line)
    assert len(upward(modules_below(tmp_path))) == 1


@pytest.mark.parametrize(
    ("line", "heavy"),
    [
        ("if TYPE_CHECKING:\n    import torch", False),
        ("import torch.nn", True),
        ("def f():\n    from torch import Tensor", True),
        ("from fastvideo_core.errors import InputError", False),
        ("from fastvideo_core.kernels import Kernel", True),
    ],
)
def test_a_contract_that_imports_too_much_is_found(tmp_path: Path, line: str, heavy: bool) -> None:
    plant(tmp_path, "fastvideo_core/kernels.py", "")
    plant(tmp_path, "fastvideo_core/contract/caching.py", line)
    assert bool(weighs_on_contract(modules_below(tmp_path))) is heavy


def test_a_planted_circle_is_found(tmp_path: Path) -> None:
    plant(tmp_path, "fv_x/__init__.py", "def f():\n    from fv_x.backend import B")
    plant(tmp_path, "fv_x/backend.py", "from fv_x.watch import W")
    plant(tmp_path, "fv_x/watch.py", "")
    assert circle(modules_below(tmp_path)) == []
    plant(tmp_path, "fv_x/watch.py", "if TYPE_CHECKING:\n    from .backend import B")
    assert set(circle(modules_below(tmp_path))) == {"fv_x.backend", "fv_x.watch"}


@pytest.mark.parametrize(
    ("line", "public"),
    [
        ("from fastvideo_core import AttentionBackend, errors", True),
        ("import fastvideo_core.testing", True),
        ("from fastvideo_core.testing import CachePolicySuite", True),
        ("from fastvideo_core.errors import InputError", True),
        ("from fastvideo_core.kernels import _on_its_device", False),
        ("from fastvideo_core.testing.branches import small_pipeline", False),
        ("from fastvideo_core.testing import branches", False),
        ("from fastvideo_core import engine", False),
        ("def f():\n    import fastvideo_core.engine.run", False),
    ],
)
def test_a_planted_inner_name_is_found(tmp_path: Path, line: str, public: bool) -> None:
    plant(tmp_path, "fv_x.py", line)
    assert (inner_names(modules_below(tmp_path).values(), PUBLIC) == []) is public


def plant(root: Path, path: str, text: str) -> None:
    file = root / path
    for folder in [file.parent, *file.parent.parents]:
        if folder == root:
            break
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    file.write_text(text)
