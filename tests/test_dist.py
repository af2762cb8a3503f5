"""Built distributions: what is in them, and what their users meet in environments that have only some of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fastvideo_core.contract.hookspecs import API_VERSION
from fastvideo_core.discovery.plugins import CORE_DISTRIBUTION, load_plugins
from tests.support.environment import Environment, Ran, build_bare_environment
from tools import dist

pytestmark = pytest.mark.slow

VERSION = dist.read(dist.ROOT)["version"]
MAJOR, MINOR = map(int, VERSION.split(".")[:2])
NEXT = f"{MAJOR}.{MINOR + 1}.0"
PROMPT = "a red circle moving left on a white background"
SMALL = ("--steps", "2", "--frames", "17")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist and a wheel of each distribution."""
    folder = tmp_path_factory.mktemp("dist")
    dist.build(folder)
    return folder


@pytest.fixture
def environment_with(built: Path, tmp_path: Path) -> Callable[..., Environment]:
    """Makes an environment that has the distributions of these names, from their wheels."""

    def make(*names: str) -> Environment:
        environment = build_bare_environment(tmp_path / "environment")
        environment.install_wheels(*(next(built.glob(f"{name.replace('-', '_')}-*.whl")) for name in names))
        return environment

    return make


def plugins_of(listed: Ran) -> dict[str, str]:
    """Status of each distribution that is not the core, of what `fv plugins --json` printed."""
    plugins = json.loads(listed.stdout)
    return {entry["distribution"]: entry["status"] for entry in plugins if entry["distribution"] != CORE_DISTRIBUTION}


LIST = (("plugins", "--json"), dict[str, str]())
DOCTOR = (("doctor",), {"FASTVIDEO_ATTENTION_BACKEND": "SAGE_ATTN"})


def test_contents_and_versions_are_as_they_should_be(built: Path) -> None:
    made = sorted(built.iterdir())
    names = {dist.read(project)["name"] for project in dist.projects()}
    kernels_and_policies = {"fv-diffusers", "fv-flash", "fv-sage", "fv-sta", "fv-teacache"}
    assert names == {CORE_DISTRIBUTION, *kernels_and_policies, "fv-ray", "fv-serve", "fv-shapes"}
    assert len(made) == 2 * len(names)
    assert [problem for path in made for problem in dist.problems_of(path)] == []
    assert list(dist.version_problems()) == []
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, made)], check=True)


def test_bounds_admit_the_core_s_series_and_no_other() -> None:
    for project in dist.projects()[1:]:
        asked = next(r for r in map(Requirement, dist.read(project)["dependencies"]) if r.name == CORE_DISTRIBUTION)
        assert asked.specifier.contains(f"{MAJOR}.{MINOR}.7")
        assert not asked.specifier.contains(NEXT)
    assert all(plugin.status == "loaded" for plugin in load_plugins().all), f"all are written for {API_VERSION}"


def test_a_version_is_given_to_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for project in [*dist.projects(), *(p.parent for p in dist.ROOT.glob("examples/plugins/*/pyproject.toml"))]:
        target = tmp_path / project.relative_to(dist.ROOT)
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(project / "pyproject.toml", target)
    monkeypatch.setattr(dist, "ROOT", tmp_path)
    dist.set_version("0.7.1")
    assert list(dist.version_problems()) == []
    assert {dist.read(project)["version"] for project in dist.projects()} == {"0.7.1"}
    assert dist.read(tmp_path)["optional-dependencies"]["demo"] == ["fv-shapes>=0.7,<0.8"]
    text = (tmp_path / "plugins" / "fv_sta" / "pyproject.toml").read_text()
    (tmp_path / "plugins" / "fv_sta" / "pyproject.toml").write_text(text.replace("0.7", "0.6"))
    assert list(dist.version_problems()) == [
        "fv-sta has version 0.6.1, fastvideo-core has 0.7.1",
        "fv-sta does not ask for fastvideo-core>=0.7,<0.8",
    ]


def test_the_core_alone(environment_with: Callable[..., Environment], tmp_path: Path) -> None:
    environment = environment_with(CORE_DISTRIBUTION)
    with_cache = ("generate", PROMPT, "--cache", "TEACACHE", "--model", "shapes")
    listed, plain, cached, doctor = environment.fv_each(
        LIST, (("generate", PROMPT), {}), (with_cache, {}), DOCTOR, cwd=tmp_path
    )
    assert plugins_of(listed) == {}
    assert (plain.returncode, cached.returncode) == (1, 1)
    assert "to get the embedded model: pip install fv-shapes" in plain.stderr
    assert "to get SAGE_ATTN: pip install fv-sage" in doctor.stdout


def test_all_of_them_and_one_removed_again(environment_with: Callable[..., Environment], tmp_path: Path) -> None:
    names = [dist.read(project)["name"] for project in dist.projects()]
    environment = environment_with(*names)
    generate = (("generate", PROMPT, *SMALL, "--cache", "TEACACHE"), dict[str, str]())
    listed, done = environment.fv_each(LIST, generate, cwd=tmp_path)
    assert set(plugins_of(listed)) == {*names} - {CORE_DISTRIBUTION}
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "a-red-circle-moving-left-on-a-white-background.mp4").is_file()
    environment.uninstall("fv-teacache")
    listed, done = environment.fv_each(LIST, generate, cwd=tmp_path)
    assert "fv-teacache" not in plugins_of(listed)
    assert "to get TEACACHE: pip install fv-teacache" in done.stderr


@pytest.fixture
def newer_core(tmp_path: Path) -> Path:
    """The wheel of the next core, with the next version of the contract."""
    source = tmp_path / "newer"
    shutil.copytree(dist.ROOT / "fastvideo_core", source / "fastvideo_core")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(dist.ROOT / name, source)
    for path, before, after in (
        (source / "pyproject.toml", f'version = "{VERSION}"', f'version = "{NEXT}"'),
        (
            source / "fastvideo_core" / "contract" / "hookspecs.py",
            f"API_VERSION = {API_VERSION}",
            f"API_VERSION = {API_VERSION + 1}",
        ),
    ):
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after))
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=source, check=True)
    return next(source.glob("dist/*.whl"))


def test_one_plugin_and_then_a_newer_core(
    environment_with: Callable[..., Environment], newer_core: Path, tmp_path: Path
) -> None:
    environment = environment_with(CORE_DISTRIBUTION, "fv-sage")
    listed, doctor = environment.fv_each(LIST, DOCTOR, cwd=tmp_path)
    assert plugins_of(listed) == {"fv-sage": "loaded"}
    assert doctor.returncode == 1, doctor.stdout
    assert f"SAGE_ATTN (fv-sage {VERSION}) cannot run here: " in doctor.stdout
    problems = doctor.stdout.split("problems\n")[1].partition("\n\n")[0].splitlines()
    assert [line.strip() for line in problems] == [
        "SAGE_ATTN (from FASTVIDEO_ATTENTION_BACKEND) cannot run here; see above"
    ]
    environment.install_wheels(newer_core)
    listed, shown = environment.fv_each(LIST, (("plugins",), {}), cwd=tmp_path)
    assert plugins_of(listed) == {"fv-sage": "broken"}
    assert f"states api_version {API_VERSION}, this fastvideo-core ({NEXT}) has {API_VERSION + 1}" in shown.stderr
    assert "install matching versions of fv-sage and fastvideo-core" in shown.stderr
    pip = [sys.executable, "-m", "pip", "--python", str(environment.python), "check"]
    checked = subprocess.run(pip, capture_output=True, text=True)
    wanted = f"fastvideo-core<{MAJOR}.{MINOR + 1},>={MAJOR}.{MINOR}"
    assert f"fv-sage {VERSION} has requirement {wanted}, but you have fastvideo-core {NEXT}" in checked.stdout
