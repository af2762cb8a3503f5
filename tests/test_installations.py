"""What discovery makes of installations as they are found, and of text that is to be shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvideo_core import API_VERSION
from fastvideo_core.app.files import read_prompts
from fastvideo_core.discovery.plugins import Plugin, load_plugins
from fastvideo_core.discovery.printable import explain, printable
from tests.support.environment import BACKEND
from tests.support.installed import write_distribution

GOOD = BACKEND.format(backend="GOOD_ATTN", version="1").replace("api_version = 1", f"api_version = {API_VERSION}")


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Two folders on the path, the first of which comes first; what was imported from them is forgotten afterwards."""
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in reversed(folders):
        folder.mkdir()
        monkeypatch.syspath_prepend(folder)
    yield folders
    for name in [name for name in sys.modules if name.startswith("acme")]:
        del sys.modules[name]


def found() -> list[Plugin]:
    return [plugin for plugin in load_plugins().all if plugin.distribution.lower().startswith("acme")]


def egg(folder: Path, name: str, metadata: str) -> None:
    """A distribution as setuptools leaves it beside its source."""
    path = folder / f"{name}.egg-info"
    path.mkdir()
    (path / "PKG-INFO").write_text(metadata)
    (path / "entry_points.txt").write_text("[fastvideo]\nkernel = acme_kernel\n")


@pytest.mark.parametrize("spelling", ["acme-kernel", "Acme_Kernel", "acme.kernel"])
def test_of_two_installations_of_one_distribution_the_first_on_the_path_counts(
    sites: list[Path], spelling: str
) -> None:
    write_distribution(sites[0], "acme-kernel", "1.0", "acme_kernel", GOOD, plugin="kernel")
    write_distribution(sites[1], spelling, "2.0", "acme_kernel", GOOD, plugin="kernel")
    assert [(plugin.version, plugin.status) for plugin in found()] == [("1.0", "loaded")]


def test_an_installation_for_development_beside_another_counts_once(sites: list[Path]) -> None:
    write_distribution(sites[0], "acme-kernel", "1.0", "acme_kernel", GOOD, plugin="kernel")
    egg(sites[1], "acme_kernel", "Metadata-Version: 2.1\nName: acme-kernel\nVersion: 1.1\n")
    assert [plugin.label for plugin in found()] == ["acme-kernel 1.0"]


def test_a_damaged_installation_for_development_is_named_with_its_version(sites: list[Path]) -> None:
    egg(sites[0], "acme_kernel-1.1", "")
    (plugin,) = found()
    assert (plugin.status, plugin.label, plugin.name) == ("broken", "acme_kernel 1.1", "kernel")


def test_what_lacks_its_version_is_damaged(sites: list[Path]) -> None:
    write_distribution(sites[0], "acme", "1.0", "acme_kernel", GOOD, plugin="kernel")
    (sites[0] / "acme-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\n")
    (plugin,) = found()
    assert "METADATA is missing or lacks its name or version" in str(plugin.cause)
    assert (plugin.label, plugin.name) == ("acme 1.0", "kernel")


def test_entry_points_of_other_groups_are_no_plugins(sites: list[Path]) -> None:
    write_distribution(sites[0], "acme", "1.0", "acme_kernel", GOOD, plugin="kernel")
    points = sites[0] / "acme-1.0.dist-info" / "entry_points.txt"
    points.write_text(f"[console_scripts]\nacme = acme_kernel:main\n{points.read_text()}[pytest11]\nacme = acme.test\n")
    assert [(plugin.name, plugin.status) for plugin in found()] == [("kernel", "loaded")]


@pytest.mark.parametrize("name", ["9_ATTN", "_ATTN", "GOOD-ATTN", "Good_ATTN", "GOOD_ATTN ", ""])
def test_what_is_no_name_of_a_backend(sites: list[Path], name: str) -> None:
    write_distribution(sites[0], "acme", "1.0", "acme_kernel", GOOD.replace("GOOD_ATTN", name), plugin="kernel")
    assert f"the backend name {name!r} is not upper case with digits and underscores" in str(found()[0].cause)


def test_a_family_of_a_class_of_its_own_is_refused(sites: list[Path]) -> None:
    source = f"""
from dataclasses import fields
from fastvideo_core import ModelFamily, hookimpl
from fastvideo_core.builtin.models.mochi import MOCHI

api_version = {API_VERSION}


class Mine(ModelFamily):
    def __eq__(self, other):
        raise RuntimeError("wherever it is looked at")


@hookimpl
def fastvideo_model_families():
    return [Mine(**{{one.name: getattr(MOCHI, one.name) for one in fields(MOCHI)}})]
"""
    write_distribution(sites[0], "acme", "1.0", "acme_kernel", source, plugin="kernel")
    assert "fastvideo_model_families must return a list of ModelFamily instances, not one with Mine(" in str(
        found()[0].cause
    )


def test_what_steers_a_terminal_is_left_out() -> None:
    steering = "".join(map(chr, [*range(9), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0xD800, 0xDFFF]))
    marks = "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    assert printable(f"a{steering}b{marks}c") == "abc"
    assert printable("ä\t🦊\n\u200d \u00a0") == "ä\t🦊\n\u200d \u00a0"


def test_an_error_is_one_line_of_bounded_length() -> None:
    assert explain(ValueError("one\r\n\ttwo\x1b[31m")) == "ValueError: one two[31m"
    kind = len("ValueError: ")
    assert explain(ValueError("x" * (2000 - kind))) == f"ValueError: {'x' * (2000 - kind)}"
    assert explain(ValueError("x" * (2001 - kind))) == f"ValueError: {'x' * (2000 - kind)}…"


class EndsError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def test_an_error_whose_message_ends_the_program_is_told_of() -> None:
    assert explain(EndsError()) == "EndsError (its message cannot be printed: it raises SystemExit)"


def test_prompts_of_an_editor_of_windows(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\N{BYTE ORDER MARK}a cat\r\n\r\n  a dog\x85of two words \r\n".encode())
    assert read_prompts(file) == ["a cat", "a dog\x85of two words"]
