"""A plugin from a distribution of its own, built and installed as its users would."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from fastvideo_core.cli import fv
from tests.support.environment import BACKEND, Environment

pytestmark = pytest.mark.slow

GENERATE = ("generate", "cat", "--height", "32", "--width", "48", "--frames", "5", "--steps", "2", "--json")

DOUBLE = BACKEND.format(backend="DOUBLE_ATTN", version="9.9")


@pytest.fixture(scope="module")
def double(environment: Environment) -> Iterator[Environment]:
    environment.install("acme-double", DOUBLE)
    yield environment
    environment.uninstall("acme-double")


def test_is_picked_by_the_variable_and_shows_in_the_receipt(
    double: Environment, wan_folder: Path, tmp_path: Path
) -> None:
    done = double.fv(*GENERATE, "--model", str(wan_folder), cwd=tmp_path, FASTVIDEO_ATTENTION_BACKEND=" double-attn ")
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    served = receipt["attention"]["SELF"]
    assert (served["backend"], served["kernel"], served["version"]) == ("DOUBLE_ATTN", "a test", "9.9")
    assert served["distribution"] == "acme-double 1.2.3"
    assert served["calls"] == 2 * 2 * 2  # steps, branches, layers
    assert served["reason"] == "requested by FASTVIDEO_ATTENTION_BACKEND"
    assert receipt["attention"]["CROSS"]["backend"] == "TORCH_SDPA"
    assert receipt["attention"]["CROSS"]["reason"] == "DOUBLE_ATTN does not serve CROSS: automatic"
    assert receipt["versions"]["acme-double"] == "1.2.3"
    written = json.loads(Path(tmp_path / receipt["receipt_path"]).read_text())
    assert written["attention"] == receipt["attention"]
    plain = json.loads(CliRunner().invoke(fv, [*GENERATE, "--model", str(wan_folder), "--output", "plain"]).stdout)
    assert plain["attention"]["SELF"]["backend"] == "TORCH_SDPA"
    videos = [(tmp_path / run["video_path"]).read_bytes() for run in (plain, receipt)]
    assert videos[0] != videos[1]


def test_an_import_that_raises_hurts_only_who_asks_for_it(
    double: Environment, wan_folder: Path, tmp_path: Path
) -> None:
    double.install("fv-sage", "raise OSError('undefined symbol: _ZN3c10')", plugin="sage")
    try:
        listed = double.fv("plugins", "--json", cwd=tmp_path)
        plugins = {plugin["distribution"]: plugin for plugin in json.loads(listed.stdout)}
        assert plugins["fv-sage"]["status"] == "broken"
        assert "undefined symbol: _ZN3c10" in plugins["fv-sage"]["error"]
        assert plugins["acme-double"]["attention_backends"] == ["DOUBLE_ATTN"]
        asked = double.fv(*GENERATE, "--model", str(wan_folder), cwd=tmp_path, FASTVIDEO_ATTENTION_BACKEND="SAGE_ATTN")
        assert asked.returncode == 1
        assert "undefined symbol: _ZN3c10" in asked.stderr
        assert "pip install fv-sage" not in asked.stderr
        examined = double.fv("doctor", cwd=tmp_path)
        assert examined.returncode == 1
        assert "fv-sage 1.2.3 is broken" in examined.stdout
        assert "DOUBLE_ATTN (acme-double 1.2.3): a test 9.9" in examined.stdout
        off = double.fv("plugins", "--json", cwd=tmp_path, FASTVIDEO_DISABLE_PLUGINS="fv_sage")
        assert "disabled" in [plugin["status"] for plugin in json.loads(off.stdout)]
    finally:
        double.uninstall("fv-sage")


def test_two_of_one_name_are_an_error_that_names_both(double: Environment) -> None:
    double.install("other-double", DOUBLE, plugin="other", version="0.5")
    try:
        code = "from fastvideo_core.discovery.plugins import load_plugins; load_plugins().backend('DOUBLE_ATTN')"
        asked = subprocess.run([str(double.python), "-c", code], capture_output=True, text=True)
        assert asked.returncode == 1
        assert (
            "DuplicateProviderError: the attention backend DOUBLE_ATTN is provided by acme-double 1.2.3" in asked.stderr
        )
        assert "and other-double 0.5; uninstall one of them, or set FASTVIDEO_DISABLE_PLUGINS=" in asked.stderr
    finally:
        double.uninstall("other-double")


def test_another_api_version_is_broken(environment: Environment, tmp_path: Path) -> None:
    environment.install("acme-old", DOUBLE.replace("api_version = 2", "api_version = 7"), plugin="old")
    try:
        listed = json.loads(environment.fv("plugins", "--json", cwd=tmp_path).stdout)
        (plugin,) = (plugin for plugin in listed if plugin["distribution"] == "acme-old")
        assert plugin["status"] == "broken"
        assert "states api_version 7" in plugin["error"]
        assert "has 2" in plugin["error"]
    finally:
        environment.uninstall("acme-old")
