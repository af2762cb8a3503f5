"""Discovery: what is found, what is broken, and that one never hurts another."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fastvideo_core.discovery.plugins import Plugin, Plugins, load_plugins
from fastvideo_core.errors import DuplicateProviderError
from tests.support.environment import BACKEND
from tests.support.installed import write_distribution

GOOD = BACKEND.format(backend="GOOD_ATTN", version="1")


class Site:
    """A folder on the path in which distributions appear to be installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, distribution: str, source: str, version: str = "1.0") -> None:
        module = distribution.replace("-", "_") + "_module"
        write_distribution(self.folder, distribution, version, module, source, plugin=f"{distribution}-plugin")

    def load(self, distribution: str) -> Plugin:
        return next(plugin for plugin in load_plugins().all if plugin.distribution == distribution)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.syspath_prepend(tmp_path)
    return Site(tmp_path)


def test_the_core_brings_torch_sdpa_and_the_wan_presets() -> None:
    plugins = load_plugins()
    backend, plugin = plugins.backend("TORCH_SDPA")
    assert backend.capabilities.lossless
    assert plugin.distribution == "fastvideo-core"
    assert "Wan-AI/Wan2.1-T2V-1.3B-Diffusers" in plugins.preset_names()


def test_a_plugin_is_found_with_its_version(site: Site) -> None:
    site.add("acme-good", GOOD, version="3.1")
    plugin = site.load("acme-good")
    assert (plugin.status, plugin.label, plugin.provides) == ("loaded", "acme-good 3.1", ["GOOD_ATTN"])


def test_what_changes_in_a_process_is_seen_by_the_next_look(site: Site, tmp_path: Path) -> None:
    assert "GOOD_ATTN" not in load_plugins().backend_names()
    site.add("acme-good", GOOD)
    assert site.load("acme-good").label == "acme-good 1.0"
    metadata = tmp_path / "acme_good-1.0.dist-info"
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-good\nVersion: 1.0.1\n")
    assert site.load("acme-good").label == "acme-good 1.0.1"
    (metadata / "entry_points.txt").write_text("[fastvideo]\nrenamed = acme_good_module\n")
    assert site.load("acme-good").name == "renamed"
    (metadata / "entry_points.txt").write_text("[other]\nrenamed = acme_good_module\n")
    assert "GOOD_ATTN" not in load_plugins().backend_names()


def test_a_module_that_gets_other_hooks_is_asked_anew(site: Site) -> None:
    site.add("acme-good", GOOD)
    site.add("acme-other", GOOD.replace("GOOD_ATTN", "OTHER_ATTN"))
    assert site.load("acme-good").provides == ["GOOD_ATTN"]
    good, other = sys.modules["acme_good_module"], sys.modules["acme_other_module"]
    good.fastvideo_attention_backends = other.fastvideo_attention_backends  # type: ignore[attr-defined]
    assert site.load("acme-good").provides == ["OTHER_ATTN"]


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("raise SystemExit(3)", "it ended in SystemExit: 3"),
        ("def broken(:", "invalid syntax"),
        (GOOD.replace("api_version = 2", ""), "states api_version None"),
        (GOOD.replace("api_version = 2", "api_version = 1"), "states api_version 1, this fastvideo-core"),
        ("api_version = 2", "implements no hook"),
        (GOOD.replace("def fastvideo_attention_backends", "def fastvideo_attention_backend"), "unknown hook"),
        (GOOD.replace("backends():", "backends(torch):"), "torch"),
        (GOOD.replace("return [Double()]", "return Double()"), "must return a list of AttentionBackend instances"),
        (GOOD.replace("return [Double()]", "return [Double]"), "must return a list of AttentionBackend instances"),
        (GOOD.replace("return [Double()]", "raise RuntimeError('no luck')"), "no luck"),
        (GOOD.replace("GOOD_ATTN", "good attn"), "not upper case"),
        (f"{GOOD}\n@hookimpl\ndef fastvideo_model_families(): return ['Wan']", "list of ModelFamily instances"),
    ],
)
def test_a_broken_plugin_is_recorded_with_its_cause_and_hurts_no_other(site: Site, source: str, cause: str) -> None:
    site.add("acme-bad", source)
    site.add("acme-good", GOOD.replace("GOOD_ATTN", "OTHER_ATTN"))
    bad, good = site.load("acme-bad"), site.load("acme-good")
    assert bad.status == "broken"
    assert cause in str(bad.cause)
    assert bad.provides == []
    assert good.provides == ["OTHER_ATTN"]


def test_two_of_one_name_raise_only_when_asked_for(site: Site) -> None:
    site.add("acme-one", GOOD, version="1.0")
    site.add("acme-two", GOOD, version="2.0")
    plugins = load_plugins()
    assert plugins.backend("TORCH_SDPA")
    with pytest.raises(DuplicateProviderError, match=r"GOOD_ATTN is provided by acme-one 1.0 and acme-two 2.0"):
        plugins.backend("GOOD_ATTN")


@pytest.mark.parametrize("names", ["acme-good", "ACME_GOOD", "acme-good-plugin", "*", "fv-x, acme-good"])
def test_plugins_can_be_switched_off(site: Site, monkeypatch: pytest.MonkeyPatch, names: str) -> None:
    site.add("acme-good", "raise RuntimeError('imported although switched off')")
    monkeypatch.setenv("FASTVIDEO_DISABLE_PLUGINS", names)
    assert site.load("acme-good").status == "disabled"
    assert load_plugins().backend("TORCH_SDPA")


def test_a_plugin_adds_a_command_and_one_that_fails_does_not_stop_the_others(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    command = """
import click
from fastvideo_core import hookimpl
api_version = 2

@hookimpl
def fastvideo_register_commands(cli):
    @cli.command()
    def greet():
        click.echo("hello from a plugin")
"""
    site.add("acme-command", command)
    site.add("acme-crash", command.replace("@cli.command()", "raise RuntimeError('no luck')"))
    from fastvideo_core.cli import _Fv

    group = _Fv("fv")
    group.main(["greet"], standalone_mode=False)
    captured = capsys.readouterr()
    assert captured.out == "hello from a plugin\n"
    assert "acme-crash 1.0 could not add its commands: RuntimeError: no luck" in captured.err


def test_asking_for_what_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Plugins([]).backend("TORCH_SDPA")


def test_an_import_that_does_not_end_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("FASTVIDEO_PLUGIN_TIMEOUT", "0.2")
    site.add("acme-sleepy", "import time\ntime.sleep(20)")
    site.add("acme-good", GOOD)
    site.add("acme-zest", GOOD.replace("GOOD_ATTN", "ZEST_ATTN"))
    start = time.perf_counter()
    for _ in range(3):
        sleepy, good, zest = (site.load(f"acme-{name}") for name in ("sleepy", "good", "zest"))
        assert (sleepy.status, good.status, zest.status) == ("broken", "loaded", "loaded")
        assert "its import did not end within 0.2 s; report it to its author, or set FASTVIDEO_PLUGIN_TIMEOUT" in str(
            sleepy.cause
        )
    assert time.perf_counter() - start < 10, "it is waited for once, and 20 s are not waited for"


def test_what_a_plugin_prints_is_no_output(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    from fastvideo_core.cli import fv

    site.add("acme-chatty", "print('hello')\n" + GOOD.replace("return [Double()]", "print('there'); return [Double()]"))
    fv.main(["plugins", "--json"], standalone_mode=False)
    captured = capsys.readouterr()
    assert "acme-chatty" in [plugin["distribution"] for plugin in json.loads(captured.out)]
    assert captured.err.split() == ["hello", "there"]


def test_loading_in_threads_redirects_nothing(site: Site) -> None:
    site.add("acme-good", GOOD)
    output, seen = sys.stdout, set[int]()

    def load() -> None:
        for _ in range(5):
            load_plugins()
            seen.add(id(sys.stdout))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        seen.add(id(sys.stdout))
        thread.join()
    assert seen == {id(output)}


SLOW = """
import time
from fastvideo_core import hookimpl

api_version = 2
inside = most = 0


@hookimpl
def fastvideo_attention_backends():
    global inside, most
    inside += 1
    most = max(most, inside)
    time.sleep(0.05)
    inside -= 1
    return []
"""


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_one_thread_loads_at_a_time(site: Site) -> None:
    site.add("acme-slow", SLOW)
    run_all([threading.Thread(target=load_plugins) for _ in range(3)])
    assert sys.modules["acme_slow_module"].most == 1


def test_a_module_is_imported_once_a_process(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "imports.txt"
    site.add(
        "acme-good",
        f"import time\nwith open({str(log)!r}, 'a') as log:\n    log.write('once ')\ntime.sleep(0.1)\n{GOOD}",
    )
    found: list[str] = []
    run_all([threading.Thread(target=lambda: found.extend(load_plugins().backend_names())) for _ in range(4)])
    assert log.read_text() == "once "
    assert len({found.count(name) for name in found}) == 1, "all threads have found the same"


def test_a_thousand_backends_are_listed(site: Site) -> None:
    many = "return [type('B', (Double,), {'name': f'B{n}'})() for n in range(1000)]"
    site.add("acme-many", GOOD.replace("return [Double()]", many))
    assert len(site.load("acme-many").provides) == 1000
    assert load_plugins().backend("B999")[1].distribution == "acme-many"


FAMILY = """
from dataclasses import replace
from fastvideo_core import hookimpl
from fastvideo_core.builtin.models.mochi import MOCHI

api_version = 2


@hookimpl
def fastvideo_model_families():
    return [replace(MOCHI, name="Another Mochi"), replace(MOCHI, name="Acme", transformer="AcmeTransformer3DModel")]
"""


def test_families_are_found_by_their_transformer_and_two_for_one_are_an_error(site: Site) -> None:
    site.add("acme-models", FAMILY)
    plugins = load_plugins()
    family, plugin = plugins.family("AcmeTransformer3DModel")
    assert (family.name, plugin.label) == ("Acme", "acme-models 1.0")
    assert plugin.provides == ["Another Mochi", "Acme"]
    with pytest.raises(
        DuplicateProviderError,
        match=r"MochiTransformer3DModel is provided by fastvideo-core .* and acme-models 1.0; uninstall one of them, "
        r"or set FASTVIDEO_DISABLE_PLUGINS=acme-models$",
    ):
        plugins.family("MochiTransformer3DModel")
    own = plugins.with_family(replace(family, name="Own", transformer="MochiTransformer3DModel"), "mine")
    assert (own.family("MochiTransformer3DModel")[0].name, own.family("AcmeTransformer3DModel")[0]) == ("Own", family)
    known = [one.transformer for one in plugins.families()]
    assert known[0] == "AcmeTransformer3DModel"
    assert known == sorted(known)
    with pytest.raises(KeyError):
        plugins.family("NoTransformer")


@pytest.mark.parametrize("base", ["Module", "ModelMixin", "object"])
def test_a_family_of_everything_is_none(site: Site, base: str) -> None:
    site.add("acme-models", FAMILY.replace("AcmeTransformer3DModel", base))
    plugins = load_plugins()
    assert f"the transformer of the model family 'Acme' is '{base}', a base of all models" in str(
        plugins.broken[0].cause
    )
    assert plugins.family("MochiTransformer3DModel")[0].name == "Mochi"
