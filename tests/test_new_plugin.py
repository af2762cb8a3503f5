"""`fv plugins new` makes a plugin that is complete: it installs, its tests pass, and it makes a video."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastvideo_core.cli import fv
from tests.support.environment import Environment

TRY = """
import gc, json, os, sys, pytest
from pathlib import Path

gc.set_threshold(50_000, 20, 20)
unneeded = ("cacheprovider", "xdist", "hypothesispytest", "unraisableexception")
for name in ("fv-mykernel", "fv-mypolicy", "fv-mymodel"):
    assert pytest.main(["-q", *(word for plugin in unneeded for word in ("-p", f"no:{plugin}")), name]) == 0

sys.path.append("fv-mymodel/tests")
from test_fv_mymodel import TestMymodel
from fastvideo_core import Action, CachePolicy, attach
from fastvideo_core.errors import FastVideoError

class EverySecond(CachePolicy):
    name = "EVERYSECOND"

    def decide(self, step, state):
        return Action.REUSE if step.index % 2 else Action.COMPUTE

suite = TestMymodel()
pipe = suite.build()
with attach(pipe, cache=EverySecond()) as fv:
    suite.generate(pipe)
print("the family of fv-mymodel:", fv.receipt.cache.schedule, fv.receipt.token_grid)

sys.path.append("other")
try:
    attach(pipe)
except FastVideoError as error:
    print(error)
sys.path.remove("other")

os.environ.update(json.loads(os.environ["CHOSEN"]))
from fastvideo_core.cli import main
main()
"""
"""Their tests; a pipeline that knows of the family through its entry point alone, and another distribution of that
family; then `fv` with the arguments: one process, as importing torch takes long.
"""

GENERATE = ("generate", "cat", "--height", "32", "--width", "48", "--frames", "5", "--steps", "4")


def new(*arguments: str) -> Result:
    return CliRunner().invoke(fv, ["plugins", "new", *arguments])


@pytest.mark.slow
def test_every_kind_passes_as_it_stands_and_serves_a_pipeline(
    environment: Environment, tmp_path: Path, wan_folder: Path
) -> None:
    projects = {"fv-mykernel": "--attention", "fv-mypolicy": "--cache", "fv-mymodel": "--family"}
    for name, option in projects.items():
        made = new(name, option)
        assert made.exit_code == 0, made.output
        assert ("pytest" in made.output, "fv generate" in made.output) == (True, option != "--family")
    assert new("fv-othermodel", "--family", "--name", "mymodel", "--into", "others").exit_code == 0
    chosen = {"FASTVIDEO_ATTENTION_BACKEND": "MYKERNEL", "FASTVIDEO_CACHE_POLICY": "MYPOLICY"}
    environment.install_projects(*(tmp_path / name for name in projects))
    environment.install_projects(tmp_path / "others" / "fv-othermodel", target=tmp_path / "other")
    try:
        done = subprocess.run(
            [str(environment.python), "-c", TRY, *GENERATE, "--model", str(wan_folder)],
            cwd=tmp_path,
            env={**os.environ, "CHOSEN": json.dumps(chosen)},
            capture_output=True,
            text=True,
            timeout=240,
        )
    finally:
        environment.uninstall(*projects)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed") == len(projects)
    assert "12 passed" in done.stdout
    assert "the family of fv-mymodel: {'cond': 'CRCR', 'uncond': 'CRCR'} (3, 2, 3)" in done.stdout
    assert "the model family of MymodelTransformer3DModel is provided by fv-mymodel 0.1.0 and" in done.stdout
    assert "fv-othermodel 0.1.0; uninstall one of them" in done.stdout
    assert "self     MYKERNEL (0.1.0)" in done.stdout
    assert "cache    MYPOLICY (fv-mypolicy 0.1.0), 4 of 8 steps skipped" in done.stdout


@pytest.mark.parametrize(("option", "variable"), [((), "ATTENTION_BACKEND"), (("--cache",), "CACHE_POLICY")])
def test_it_says_how_to_try_it(option: tuple[str, ...], variable: str) -> None:
    made = new("fv-mykernel", *option)
    assert f'FASTVIDEO_{variable}=MYKERNEL fv generate "a red circle' in made.output


def test_everything_has_the_name(tmp_path: Path) -> None:
    assert new("FV_Fast.Kernel", "--into", "plugins").exit_code == 0
    project = tmp_path / "plugins" / "fv-fast-kernel"
    files = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert files == {"pyproject.toml", "README.md", "fv_fast_kernel/__init__.py", "tests/test_fv_fast_kernel.py"}
    text = "".join((project / name).read_text() for name in sorted(files))
    assert "$" not in text.replace("$ ", "")
    for expected in ('name = "fv-fast-kernel"', 'fast-kernel = "fv_fast_kernel"', "class FastKernel(", '"FAST_KERNEL"'):
        assert expected in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fv mykernel", "'fv mykernel' is no name for a plugin; take letters, digits and dashes, such as fv-mykernel"),
        ("../evil", "is no name for a plugin"),
        ("fv-2fast", "is no name for a plugin"),
        ("", "is no name for a plugin"),
        ("torch-sdpa", "TORCH_SDPA is installed already; choose another name than 'torch-sdpa'"),
        ("fv-teacache", "TEACACHE is installed already"),
        ("none", "NONE cannot be asked for by name; give another with --name"),
        ("numpy", "Python has something else called numpy; choose another name than 'numpy', such as fv-my-numpy"),
        ("class", "Python has something else called class"),
        ("fv-sta", "Python has something else called fv_sta"),
        ("fv-true", "a class True would hide something of that name in the plugin's module; give another name with"),
        ("fv-settings", "a class Settings would hide"),
        ("fv-probe", "give another name with --name, such as MY_PROBE"),
        ("fv-attention-backend", "a class AttentionBackend would hide"),
    ],
)
def test_a_name_that_will_not_do(name: str, message: str, tmp_path: Path) -> None:
    refused = new(name)
    assert refused.exit_code == 1
    assert message in refused.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "name"), [("cache", "fv-action"), ("family", "fv-model-family")])
def test_a_name_that_the_module_needs_itself(kind: str, name: str, tmp_path: Path) -> None:
    refused = new(name, f"--{kind}")
    assert refused.exit_code == 1
    assert "would hide something of that name" in refused.output
    assert not list(tmp_path.iterdir())
    assert new(name, "--attention").exit_code == 0, "which needs no such name"


def test_what_it_provides_may_have_another_name(tmp_path: Path) -> None:
    assert new("fv-mykernel", "--name", "fast-attn").exit_code == 0
    project = tmp_path / "fv-mykernel"
    text = "".join(path.read_text() for path in project.rglob("*") if path.is_file())
    for expected in ('name = "FAST_ATTN"', "class FastAttn(", "FASTVIDEO_FAST_ATTN_BLOCKS", "BACKEND=FAST_ATTN"):
        assert expected in text
    assert "MYKERNEL" not in text
    assert "NO/NAME cannot be asked for by name" in new("fv-other", "--name", "no/name").output
    assert not (tmp_path / "fv-other").exists()


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "fv-mykernel").mkdir()
    refused = new("fv-mykernel")
    assert refused.exit_code == 1
    assert "'fv-mykernel' is there already; choose another name or --into another folder" in refused.output
    assert not list((tmp_path / "fv-mykernel").iterdir())
