"""What surrounds the code agrees with it: versions, constraints, workflows, the README."""

from __future__ import annotations

import re
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from tools import dist

ROOT = Path(__file__).parents[1]
VERSION = dist.read(ROOT)["version"]


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


@cache
def names_of_noxfile() -> dict[str, Any]:
    """Read once a process: nox takes a session's name once."""
    return runpy.run_path(str(ROOT / "noxfile.py"))


def test_changes_and_citation_name_the_version() -> None:
    assert re.findall(r"(?m)^## (\S+) \(", text("CHANGELOG.md"))[0] == VERSION
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["version"] == VERSION
    assert f"## {VERSION} ({citation['date-released']})" in text("CHANGELOG.md")


def test_constraints_are_exact_and_cover_all_that_is_installed_for_development() -> None:
    pinned = [Requirement(line) for line in text("constraints.txt").splitlines() if not line.startswith("#")]
    assert [one.name for one in pinned if not re.fullmatch(r"==[^*,]+", str(one.specifier))] == []
    names = {canonicalize_name(one.name) for one in pinned}
    projects = [*dist.projects(), *(path.parent for path in ROOT.glob("examples/plugins/*/pyproject.toml"))]
    ours = {canonicalize_name(dist.read(project)["name"]) for project in projects}
    asked = [one for project in projects for one in dist.read(project)["dependencies"]]
    asked += [one for extra in ("dev", "bench", "testing") for one in dist.read(ROOT)["optional-dependencies"][extra]]
    missing = {canonicalize_name(Requirement(one).name) for one in asked} - names - ours
    assert missing == set()


def test_nox_and_the_workflow_run_the_same_matrix() -> None:
    nox = names_of_noxfile()
    jobs = yaml.safe_load(text(".github/workflows/checks.yml"))["jobs"]
    rows = jobs["tests"]["strategy"]["matrix"]["include"]
    assert [(row["python"], row["torch"], row["diffusers"]) for row in rows] == list(nox["MATRIX"])
    run = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    sessions = {name for line in run for name in re.findall(r"\b(lint|types|tests|docs|wheels)\b", line)}
    assert sessions == {"lint", "types", "tests", "docs", "wheels"}
    assert all(callable(nox[name]) for name in sessions)


def test_the_matrix_goes_from_the_oldest_to_the_newest_that_is_supported() -> None:
    matrix = names_of_noxfile()["MATRIX"]
    table = dist.read(ROOT)
    bounds = {one.name: one.specifier for one in map(Requirement, table["dependencies"])}
    assert f">={min(row[0] for row in matrix)}" == table["requires-python"]
    assert "torch>=2.9" in table["dependencies"]
    assert (matrix[0][1], matrix[-1][1]) == ("2.9", "newest")
    assert [bounds["diffusers"].contains(f"{row[2]}.1") for row in matrix] == [True] * len(matrix)
    assert {row[2] for row in matrix} == {"0.40", "0.41", "0.42"}


def test_hooks_before_a_commit_are_what_make_test_checks() -> None:
    hooks = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    recipe = text("Makefile").partition("\ntest:")[2].partition("\n\n")[0]
    checked = set(re.findall(r"\$\(BIN\)/(ruff \w+|mypy)", recipe))
    entries = [hook["entry"].removeprefix(".venv/bin/") for hook in hooks]
    assert checked <= {" ".join(entry.split()[: len(one.split())]) for entry in entries for one in checked}
    assert all(hook["language"] == "system" and hook["entry"].startswith(".venv/bin/") for hook in hooks)


def test_the_readme_is_short_and_begins_with_a_moving_picture() -> None:
    lines = text("README.md").splitlines()
    assert len(lines) <= 120
    shown = re.fullmatch(r"!\[.+\]\((.+)\)", lines[2])
    assert shown
    assert (ROOT / shown[1]).stat().st_size <= 1_500_000
    with Image.open(ROOT / shown[1]) as picture:
        frames = getattr(picture, "n_frames", 1)
        first, last = picture.convert("RGB"), None
        picture.seek(frames - 1)
        last = picture.convert("RGB")
    assert frames > 20
    assert first.tobytes() != last.tobytes()


def test_forms_for_issues_can_be_read() -> None:
    forms = [yaml.safe_load(path.read_text("utf-8")) for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")]
    asked = [part["attributes"]["label"] for form in forms for part in form.get("body", [])]
    assert any("fv doctor" in label for label in asked)
    assert all(part["type"] in ("textarea", "dropdown") for form in forms for part in form.get("body", []))
