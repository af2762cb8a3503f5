"""The documents: they build, their links lead somewhere, they leave nothing out, and what they show runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

import fastvideo_core
from fastvideo_core import errors
from fastvideo_core.app.loading import load_pipeline
from fastvideo_core.app.model_info import ModelInfo
from fastvideo_core.cli import fv
from fastvideo_core.contract import hookspecs
from fastvideo_core.contract.settings import Owner, declared_settings
from fastvideo_core.discovery.environment import VARIABLES
from fastvideo_core.discovery.plugins import Plugin, _register, load_plugins
from tests.support.documents import REASONS, ROOT, Reader, blocks, documents
from tests.support.inner_run import failures
from tests.support.small import make_small

DOCS = ROOT / "docs"


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.slow
def test_they_build(tmp_path: Path) -> None:
    site = tmp_path / "site"
    sphinx = "import gc, sys; gc.disable(); from sphinx.cmd.build import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", sphinx, "-W", "--keep-going", "-q", "-d", str(tmp_path / "kept"), str(DOCS)]
    done = subprocess.run([*command, str(site)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    assert pages <= {path.relative_to(site) for path in site.rglob("*.html")}
    api = (site / "api.html").read_text("utf-8")
    assert [name for name in fastvideo_core.__all__ if f'id="fastvideo_core.{name}"' not in api] == []


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        if not re.match(r"(https?:|#)", target):
            assert (document.parent / target.partition("#")[0]).exists(), target


def test_no_hook_variable_or_error_is_left_out() -> None:
    plugin_pages = "".join((DOCS / name).read_text("utf-8") for name in ("attention-plugin.md", "caching-policy.md"))
    hooks = [name for name, value in vars(hookspecs).items() if name.startswith("fastvideo_") and callable(value)]
    assert len(hooks) == 10
    assert [hook for hook in hooks if f"`{hook}" not in plugin_pages] == []

    variables = [*VARIABLES]
    first_party = {path.name.replace("_", "-") for path in (ROOT / "plugins").iterdir()}
    for plugin in load_plugins().loaded:
        if plugin.distribution in first_party:
            owners: list[Owner] = [*plugin.backends, *plugin.policies]
            variables += [one.variable for owner in owners for one in declared_settings(owner)]
    assert len(variables) > 12
    page = (DOCS / "environment.md").read_text("utf-8")
    assert [name for name in variables if f"| `{name}` |" not in page] == []
    mentioned = set(re.findall(r"\bFASTVIDEO_[A-Z_]+[A-Z]\b", page))
    assert mentioned <= {*variables}, "a variable that nothing reads"

    page = (DOCS / "errors.md").read_text("utf-8")
    kinds = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
    assert [name for name in kinds if f"`{name}`" not in page] == []


def test_every_block_runs_or_says_why_not() -> None:
    known = set()
    for document in documents():
        for block in blocks(document):
            if block.not_run is not None:
                assert any(reason in block.not_run for reason in REASONS), f"{document.name}:{block.line}"
                known.add(document.name)
    assert known


PLACES = tuple(product(range(2), range(3), range(4)))
"""Steps, layers and heads of a small file in the published format."""

_loaded: dict[tuple[str, Any], Any] = {}


def load_once(info: ModelInfo, dtype: Any, *rounded: Any) -> Any:
    """A copy of a pipeline that is loaded once, unless its weights are rounded."""
    if rounded:
        return load_pipeline(info, dtype, *rounded)
    key = (info.location, dtype)
    if key not in _loaded:
        _loaded[key] = load_pipeline(info, dtype)
    return deepcopy(_loaded[key])


def steps_of_command() -> int:
    """Four; TeaCache calibrates from a hundred pairs of steps."""
    context = click.get_current_context(silent=True)
    return 18 if context is not None and context.info_name == "calibrate" else 4


@pytest.fixture
def quick(document: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Fewer frames and steps than the preset has, one loading, and the prompts that pages speak of."""
    make_small(monkeypatch, steps_of_command)
    monkeypatch.setattr("fastvideo_core.app.opening.load_pipeline", load_once)
    colours = ("red", "green", "blue")
    (tmp_path / "prompts.txt").write_text(
        "".join(f"a {one} circle moving left on a white background\n" for one in colours)
    )
    windows = {f"{step}_{layer}_{head}": [5, 6, 10] if step == 0 else [3, 3, 3] for step, layer, head in PLACES}
    (tmp_path / "flat.json").write_text(json.dumps(windows))
    yield
    monkeypatch.undo()


@pytest.mark.slow
@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_what_they_show_runs(document: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    Reader(monkeypatch).read(document)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["attention-plugin.md", "caching-policy.md"])
def test_the_plugins_that_they_show_pass_the_suite(page: str, tmp_path: Path) -> None:
    module = [one.text for one in blocks(DOCS / page) if one.language == "python" and "generator." not in one.text]
    assert "Suite):" in "".join(module)
    assert failures(tmp_path, "\n\n".join(module)) == {}


def test_what_holds_a_finding_is_there() -> None:
    text = "".join(document.read_text("utf-8") for document in documents())
    named = set(re.findall(r"`((?:tests|benchmarks|tools|plugins|examples)/[\w/]+\.py)`", text))
    assert len(named) > 40
    assert [path for path in sorted(named) if not (ROOT / path).is_file()] == []


def test_every_plugin_that_a_page_shows_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole modules are loaded as discovery loads them: the contract's version, the hooks, and what these return."""
    found = {}
    for document in documents():
        for block in blocks(document):
            if "api_version" in block.text and block.language == "python":
                module = ModuleType(f"shown_{document.stem}".replace("-", "_"))
                monkeypatch.setitem(sys.modules, module.__name__, module)
                exec(compile(block.text, f"{document.name}:{block.line}", "exec", dont_inherit=True), vars(module))
                plugin = Plugin(document.name, "shown", "1.0")
                _register(plugin, module)
                found[document.name] = plugin.provides
    assert found == {
        "attention-plugin.md": ["MYKERNEL"],
        "caching-policy.md": ["MYPOLICY"],
        "model-family.md": ["My model"],
    }


def test_every_plugin_and_command_of_this_project_is_spoken_of() -> None:
    text = "".join(path.read_text("utf-8") for path in DOCS.rglob("*.md"))
    folders = [
        path.parent for kind in ("plugins", "examples/plugins") for path in (ROOT / kind).glob("*/pyproject.toml")
    ]
    assert len(folders) == 16
    assert [one.name for one in folders if one.name.replace("_", "-") not in text] == []
    assert [one.name for one in folders if not (one / "README.md").is_file()] == []
    commands = list(commands_of(fv, "fv"))
    assert len(commands) == 12
    assert [name for name in commands if not re.search(rf"{name}\b", text)] == []


def commands_of(group: click.Group, name: str) -> Iterator[str]:
    context = click.Context(group)
    for one in group.list_commands(context):
        command = group.get_command(context, one)
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{name} {one}")
        else:
            yield f"{name} {one}"
