"""Whatever is wrong with plugins, what does not need them goes on, and names them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastvideo_core import API_VERSION, Need, Role
from fastvideo_core.cli import fv
from fastvideo_core.discovery.plugins import Plugin, load_plugins
from fastvideo_core.engine.attention.choice import choose_attention
from fastvideo_core.errors import BackendUnavailableError
from tests.support.environment import BACKEND
from tests.support.installed import write_distribution
from tests.support.random_plugins import write_random_plugins

GOOD = BACKEND.format(backend="GOOD_ATTN", version="1").replace("api_version = 1", f"api_version = {API_VERSION}")
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202e]")

Add = Callable[..., object]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path; what was imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(("acme", "sagea"))]:
        del sys.modules[name]


@pytest.fixture
def add(site: Path) -> Add:
    """Installs a plugin acme from its source."""
    return lambda source: write_distribution(site, "acme", "1.0", "acme_module", source, plugin="acme")


@pytest.fixture(autouse=True)
def own_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these plugins add to `fv` is gone after each test."""
    monkeypatch.setattr(fv, "commands", dict(fv.commands))
    monkeypatch.setattr(fv, "_complete", False)


def run(*arguments: str) -> int:
    """`fv` with these arguments; its status."""
    try:
        fv.main(list(arguments), standalone_mode=False)
    except SystemExit as end:
        return int(str(end.code))
    return 0


def found(name: str = "acme") -> Plugin:
    return next(plugin for plugin in load_plugins().all if plugin.distribution == name)


@pytest.mark.filterwarnings("ignore:be warned")
def test_a_thousand_random_plugins(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = write_random_plugins(site, 1000, seed=13)
    assert run("plugins", "--json") == 0
    output = capsys.readouterr().out
    listed = {re.sub("_", "-", one["distribution"]): one for one in json.loads(output)}
    assert set(names) <= set(listed)
    assert not STEERING.search(output)
    statuses = [listed[name]["status"] for name in names]
    assert statuses.count("loaded") > 200
    assert statuses.count("broken") > 400
    assert all(listed[name]["error"] for name in names if listed[name]["status"] == "broken")

    assert sum("F" in "".join(one["model_families"])[:1] for one in listed.values()) > 200

    assert run("plugins") == 0
    captured = capsys.readouterr()
    assert not STEERING.search(captured.out)
    for name in names:
        assert re.search(rf"\b{name}\b|\b{name.replace('-', '_')}\b", captured.out)
    with pytest.raises(SystemExit, match="0"):
        fv.main(["--help"])
    assert not STEERING.search(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("METADATA", None),
        ("METADATA", b""),
        ("METADATA", b"\xff\xfeName"),
        ("entry_points.txt", b"[fastvideo]\nacme_module\n"),
        ("entry_points.txt", b"[fastvideo]\n\xff = acme_module\n"),
    ],
)
def test_a_damaged_installation_is_named_and_the_rest_goes_on(
    add: Add, tmp_path: Path, name: str, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    add(GOOD)
    file = tmp_path / "acme-1.0.dist-info" / name
    file.unlink() if content is None else file.write_bytes(content)
    assert found().status == "broken"
    assert re.search(rf"{name} .*install acme again", str(found().cause))
    assert load_plugins().backend("TORCH_SDPA")
    assert run("plugins") == 0
    assert "acme 1.0 is broken" in capsys.readouterr().err


def test_a_damaged_installation_that_is_no_plugin_is_nobodys_business(add: Add, tmp_path: Path) -> None:
    add(GOOD)
    (tmp_path / "acme-1.0.dist-info" / "entry_points.txt").write_text("[console_scripts]\nno equals sign\n")
    assert not [plugin for plugin in load_plugins().all if plugin.distribution == "acme"]


@pytest.mark.parametrize("broken", ["raise Unprintable", "raise KeyboardInterrupt", "raise GeneratorExit"])
def test_what_an_import_raises_is_told_in_a_line(add: Add, broken: str) -> None:
    add("class Unprintable(Exception):\n    def __str__(self):\n        raise ValueError\n" + broken)
    plugin = found()
    assert plugin.status == "broken"
    assert broken.removeprefix("raise ") in str(plugin.cause)
    assert "\n" not in str(plugin.cause)


PRESET = GOOD + "\n@hookimpl\ndef fastvideo_model_presets():\n    from pathlib import Path\n    return [PRESET]\n"


@pytest.mark.parametrize(
    ("preset", "cause"),
    [
        ("None", "ModelPreset instances, not one with None"),
        ("ModelPreset(None, 'org/model')", "the name of the model preset None is None, it must be text"),
        ("ModelPreset(5, 'org/model')", "is 5, it must be text"),
        ("ModelPreset('m', Path('x'))", "the location of the model preset 'm' is"),
        ("ModelPreset('m', None)", "the location of the model preset 'm' is None"),
        ("ModelPreset('m', 'x', None)", "the sampling of the model preset 'm' must be a dict"),
        ("ModelPreset('m', 'x', {}, None)", "the description of the model preset 'm' is None"),
        ("ModelPreset('m', 'x', score=0)", "the score of the model preset 'm' is 0, it must be a function"),
        ("ModelPreset('m', 'x', score=5)", "the score of the model preset 'm' is 5, it must be a function"),
    ],
)
def test_presets_are_checked_when_they_are_found(add: Add, preset: str, cause: str) -> None:
    add("from fastvideo_core import ModelPreset\n" + PRESET.replace("PRESET", preset))
    assert cause in str(found().cause)
    assert all(isinstance(name, str) for name in load_plugins().preset_names())


NEED = [Need(Role.SELF, 64, "float32", "cpu")]
RANKED = GOOD.replace("lossless=False)", "lossless=True)\n    def automatic_priority(self, need):\n        return 9\n")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("return 9", "raise RuntimeError('no luck')", "its automatic_priority raised RuntimeError: no luck"),
        ("return 9", "raise SystemExit(3)", "its automatic_priority raised SystemExit: 3"),
        ("return 9", "return 'high'", "its automatic_priority is 'high', it must be int"),
        ("return 9", "return None", "its automatic_priority is None, it must be int"),
        ("frozenset({Role.SELF})", "None", "roles must be a frozenset of Role, not None"),
        ("lossless=True", "lossless='yes'", "lossless must be True or False, not 'yes'"),
        ("    def probe", "    capabilities = None\n    def probe", "its capabilities raised AttributeError"),
    ],
)
def test_automatic_choice_leaves_a_broken_backend_out(add: Add, old: str, new: str, problem: str) -> None:
    assert old in RANKED
    add(RANKED.replace(old, new))
    with pytest.warns(UserWarning, match=r"GOOD_ATTN \(acme 1.0\) is left out of the automatic choice") as told:
        requested, chosen = choose_attention(load_plugins(), None, NEED, None)
    assert requested is None
    assert chosen[Role.SELF].backend.name == "TORCH_SDPA"
    assert problem in str(told[0].message)


def test_a_broken_backend_that_was_asked_for_is_named(add: Add) -> None:
    add(GOOD.replace("frozenset({Role.SELF})", "None"))
    with pytest.raises(
        BackendUnavailableError, match=r"GOOD_ATTN .*acme 1.0\) is broken: .* roles must be a frozenset"
    ):
        choose_attention(load_plugins(), "GOOD_ATTN", NEED, None)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('return Probe(True, kernel="a test", version="1")', "return None", "its probe is None, it must be Probe"),
        ('return Probe(True, kernel="a test", version="1")', "raise SystemExit(3)", "its probe raised SystemExit: 3"),
        ("    def probe", "    capabilities = None\n    def probe", "its capabilities"),
        ("    def probe", "    capabilities = property(lambda self: 1 / 0)\n    def probe", "ZeroDivisionError"),
        ("    def probe", "    settings_type = int\n    def probe", "its take_settings raised TypeError"),
    ],
)
def test_the_doctor_goes_on_and_names_what_is_broken(
    add: Add, old: str, new: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in GOOD
    add(GOOD.replace(old, new))
    assert run("doctor") == 1
    output = capsys.readouterr().out
    assert "TORCH_SDPA (fastvideo-core" in output
    assert re.search(rf"problems\n(.*\n)*.*GOOD_ATTN \(acme 1.0\): .*{re.escape(problem)}", output)


@pytest.mark.parametrize(
    "command",
    [
        "raise SystemExit(7)",
        "raise KeyboardInterrupt",
        "cli.add_command('junk', 'j')",
        "import click; cli.add_command(click.Command('\\x1b[31mjunk'))",
    ],
)
def test_a_plugin_that_fails_while_it_adds_commands(add: Add, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    add(GOOD + f"\n@hookimpl\ndef fastvideo_register_commands(cli):\n    {command}\n")
    from fastvideo_core.cli import _Fv

    group = _Fv("fv", commands=fv.commands)
    with pytest.raises(SystemExit, match="0"):
        group.main(["--help"])
    captured = capsys.readouterr()
    assert "acme 1.0 could not add its commands" in captured.err
    assert "generate" in captured.out
    assert "junk" not in captured.out


def test_no_kernel_is_imported_that_nobody_asked_for(add: Add, tmp_path: Path) -> None:
    write_distribution(tmp_path, "sageattention", "2.2.0", "sageattention", "raise SystemExit('imported')")
    write_distribution(tmp_path, "sageattn3", "1.0", "sageattn3", "raise SystemExit('imported')")
    plugins = load_plugins()
    assert "SAGE_ATTN" in plugins.backend_names()
    choose_attention(plugins, None, NEED, None)
    assert "sageattention" not in sys.modules


def test_the_name_of_a_backend_is_read_without_running_its_code(add: Add) -> None:
    add(GOOD.replace('name = "GOOD_ATTN"', "name = property(lambda self: 'GOOD_ATTN')"))
    assert "name must be text that stands in the class" in str(found().cause)


@pytest.mark.parametrize(
    ("raised", "told"), [("SystemExit(9)", "SystemExit: 9"), ("Silent()", "Silent .its message cannot be printed")]
)
def test_observers_that_end_the_program_do_not(add: Add, wan_pipeline: Any, raised: str, told: str) -> None:
    from fastvideo_core import attach

    add(
        "class Silent(Exception):\n    def __str__(self):\n        raise ValueError\n"
        f"from fastvideo_core import hookimpl\napi_version = {API_VERSION}\n@hookimpl\n"
        f"def fastvideo_step_done(generation):\n    raise {raised}\n"
    )
    with attach(wan_pipeline) as attached, pytest.warns(UserWarning, match=rf"acme 1.0 failed .*{told}"):
        wan_pipeline("x", height=32, width=32, num_frames=5, num_inference_steps=2, output_type="np")
    assert attached.receipt.attention
