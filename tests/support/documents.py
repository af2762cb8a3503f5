"""Run what the documents show: code, commands, and commands with what they print."""

from __future__ import annotations

import fnmatch
import json
import re
import runpy
import shlex
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt

from fastvideo_core.cli import fv

ROOT = Path(__file__).parents[2]

REASONS = (
    "needs a GPU",
    "needs a hub",
    "needs a package index",
    "takes half an hour",
    "takes hours",
    "docs/sta.md runs one",
    "docs/teacache.md runs it",
    "make test runs it",
    "make runs it",
    "tests/test_dist.py runs it",
    "tests/test_fv_ray_cluster.py runs it",
    "tests/test_fv_serve.py runs it",
    "tests/test_fv_serve_killed.py runs it",
    "tests/test_new_plugin.py runs it",
    "tests/test_serve_ray.py runs it",
)
"""Why a block may say that it is not run."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, where it begins, and why it is not run, if it says so."""

    language: str
    text: str
    line: int
    not_run: str | None


def documents() -> list[Path]:
    """Everything that users read."""
    patterns = ("*.md", "docs/**/*.md", "plugins/*/README.md", "examples/plugins/*/README.md", "benchmarks/README.md")
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def blocks(document: Path) -> list[Block]:
    """The blocks that readers see, so not those of Sphinx; an indented one, which says no language, is an error."""
    found = []
    comment: str | None = None
    for token in MarkdownIt("commonmark").parse(document.read_text("utf-8")):
        if token.type == "html_block":
            said = re.fullmatch(r"<!-- not run: (.+?) -->\s*", token.content)
            comment = said[1] if said else None
        elif token.type in ("fence", "code_block"):
            line = token.map[0] + 1 if token.map else 0
            assert token.type == "fence", f"{document.name}:{line} is indented; fence it, with its language"
            if token.info.startswith("{"):
                continue
            found.append(Block(token.info.strip(), token.content, line, comment))
            comment = None
        else:
            comment = None
    return found


class Reader:
    """A reader who tries everything on a page, from top to bottom, in a folder of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        page = ModuleType("page")
        monkeypatch.setitem(sys.modules, "page", page)
        self.names = page.__dict__

    def read(self, document: Path) -> None:
        for block in blocks(document):
            if block.not_run is None:
                self._try(block, f"{document.relative_to(ROOT)}:{block.line}")

    def _try(self, block: Block, place: str) -> None:
        if block.language == "python":
            self._provide(block.text)
            exec(compile(block.text, place, "exec", dont_inherit=True), self.names)
        elif block.language == "bash":
            for command in _lines(block.text):
                code, output = self._run(command, place)
                assert code == 0, f"{place}: {command}\n{output}"
        elif block.language == "console":
            for command, expected in _sessions(block.text):
                _, output = self._run(command, place)
                missing = [line for line in expected if not fnmatch.filter(output.splitlines(), line)]
                assert not missing, f"{place}: {command}\nprinted\n{output}\nnot {missing}"
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "json":
            json.loads(block.text)
        else:
            assert block.language == "text", f"{place}: a block in {block.language!r}"

    def _provide(self, text: str) -> None:
        """What a page takes for granted: a loaded pipeline, a generator."""
        wanted = {name for name in ("pipe", "generator") if re.search(rf"\b{name}\b", text)} - self.names.keys()
        if "pipe" in wanted and "pipe =" not in text:
            import torch
            from diffusers import WanPipeline
            from fv_shapes.plugin import MODEL_FOLDER

            self.names["pipe"] = WanPipeline.from_pretrained(MODEL_FOLDER, dtype=torch.float32)
        if "generator" in wanted and "generator =" not in text and "as generator" not in text:
            from fastvideo_core import VideoGenerator

            self.names["generator"] = VideoGenerator.from_pretrained("shapes")

    def _run(self, command: str, place: str) -> tuple[int, str]:
        words = shlex.split(command, comments=True)
        if not words:
            return 0, ""
        variables = {}
        while "=" in words[0]:
            name, _, variables[name] = words.pop(0).partition("=")
        with self._monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            if words[0] == "fv":
                done = CliRunner().invoke(fv, words[1:])
                if done.exception and not isinstance(done.exception, SystemExit):
                    raise done.exception
                return done.exit_code, done.output
            if words[:2] == ["python", "-m"]:
                patch.setattr(sys, "argv", words[2:])
                patch.delitem(sys.modules, f"{words[2]}.__main__", raising=False)  # a test may have imported it
                with pytest.raises(SystemExit) as end:
                    runpy.run_module(words[2], run_name="__main__")
                return int(end.value.code or 0), ""
            if words[0] in _BY_MAKE:
                _BY_MAKE[words[0]](words[1:], place)
                return 0, ""
            if words[0] == "python":
                patch.setattr(sys, "argv", words[1:])
                runpy.run_path(str(ROOT / words[1]), run_name="__main__")
                return 0, ""
        raise AssertionError(f"{place}: who runs {words[0]!r}? Say why it is not run")


def _installs(arguments: list[str], place: str) -> None:
    """`pip install -e FOLDER` of something that the Makefile has installed for these tests."""
    assert arguments[:2] == ["install", "-e"], f"{place}: what pip installs from an index, no test can"
    assert arguments[2] in (ROOT / "Makefile").read_text() or (ROOT / arguments[2]).match("examples/plugins/*"), place
    assert (ROOT / arguments[2] / "pyproject.toml").exists(), place


def _tests(arguments: list[str], place: str) -> None:
    """`pytest FOLDER` of tests that this run of pytest has among its own."""
    assert arguments, f"{place}: all of them?"
    assert all(one.startswith("examples/plugins/") and (ROOT / one / "tests").is_dir() for one in arguments), place


def _makes(arguments: list[str], place: str) -> None:
    """`make TARGET`, which installs anew; CI begins with one."""
    target = next(one for one in arguments if "=" not in one)
    assert re.search(rf"^{target}: \$\(VENV\)/\.\w+$", (ROOT / "Makefile").read_text(), re.MULTILINE), place


_BY_MAKE = {"pip": _installs, "pytest": _tests, "make": _makes}
"""Commands that `make test` carries out around the tests: here only what they name is looked at."""


def _lines(text: str) -> list[str]:
    return re.sub(r"\\\n\s*", " ", text).splitlines()


def _sessions(text: str) -> list[tuple[str, list[str]]]:
    """Commands behind "$ ", each with patterns of lines that it prints; … stands for anything."""
    found: list[tuple[str, list[str]]] = []
    for line in _lines(text):
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.strip("… "):
            found[-1][1].append(re.sub(r"([\[\]?*])", r"[\1]", line).replace("…", "*"))
    return found
