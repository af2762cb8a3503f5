"""A plugin from a distribution of its own, built and installed as its users would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fastvideo_core.cli import fv
from tests.support.environment import BACKEND, Environment
from tests.support.installed import remove, write_distribution

pytestmark = pytest.mark.slow

GENERATE = ("generate", "cat", "--height", "32", "--width", "48", "--frames", "5", "--steps", "2", "--json")

DOUBLE = BACKEND.format(backend="DOUBLE_ATTN", version="9.9")


RAISES = "raise OSError('undefined symbol: _ZN3c10')"


def test_it_is_picked_by_the_variable_and_one_that_raises_hurts_only_who_asks_for_it(
    environment: Environment, wan_folder: Path, tmp_path: Path
) -> None:
    """Built, installed and removed as users do; the commands run in one process of that environment."""
    environment.install("acme-double", DOUBLE)
    broken = write_distribution(environment.site, "fv-sage", "1.2.3", "fv_sage", RAISES, plugin="sage")
    generate = (*GENERATE, "--model", str(wan_folder))
    try:
        chosen, listed, asked, examined, off = environment.fv_each(
            (generate, {"FASTVIDEO_ATTENTION_BACKEND": " double-attn "}),
            (("plugins", "--json"), {}),
            (generate, {"FASTVIDEO_ATTENTION_BACKEND": "SAGE_ATTN"}),
            (("doctor",), {}),
            (("plugins", "--json"), {"FASTVIDEO_DISABLE_PLUGINS": "fv_sage"}),
            cwd=tmp_path,
        )
    finally:
        remove(*broken)
        environment.uninstall("acme-double")
    assert chosen.returncode == 0, chosen.stderr
    check_receipt(json.loads(chosen.stdout), generate, tmp_path)

    plugins = {plugin["distribution"]: plugin for plugin in json.loads(listed.stdout)}
    assert plugins["fv-sage"]["status"] == "broken"
    assert "undefined symbol: _ZN3c10" in plugins["fv-sage"]["error"]
    assert plugins["acme-double"]["attention_backends"] == ["DOUBLE_ATTN"]
    assert asked.returncode == 1
    assert "undefined symbol: _ZN3c10" in asked.stderr
    assert "pip install fv-sage" not in asked.stderr
    assert examined.returncode == 1
    assert "fv-sage 1.2.3 is broken" in examined.stdout
    assert "DOUBLE_ATTN (acme-double 1.2.3): a test 9.9" in examined.stdout
    assert "disabled" in [plugin["status"] for plugin in json.loads(off.stdout)]
    assert "acme-double" not in environment.fv("plugins", cwd=tmp_path).stdout


def check_receipt(receipt: dict[str, Any], generate: tuple[str, ...], folder: Path) -> None:
    """It says who served, it is the one that was written, and the video is not the one of torch's own attention."""
    served = receipt["attention"]["SELF"]
    assert (served["backend"], served["kernel"], served["version"]) == ("DOUBLE_ATTN", "a test", "9.9")
    assert served["distribution"] == "acme-double 1.2.3"
    assert served["calls"] == 2 * 2 * 2  # steps, branches, layers
    assert served["reason"] == "requested by FASTVIDEO_ATTENTION_BACKEND"
    assert receipt["attention"]["CROSS"]["backend"] == "TORCH_SDPA"
    assert receipt["attention"]["CROSS"]["reason"] == "DOUBLE_ATTN does not serve CROSS: automatic"
    assert receipt["versions"]["acme-double"] == "1.2.3"
    written = json.loads((folder / receipt["receipt_path"]).read_text())
    assert written["attention"] == receipt["attention"]
    plain = json.loads(CliRunner().invoke(fv, [*generate, "--output", "plain"]).stdout)
    assert plain["attention"]["SELF"]["backend"] == "TORCH_SDPA"
    videos = [(folder / run["video_path"]).read_bytes() for run in (plain, receipt)]
    assert videos[0] != videos[1]


def test_two_of_one_name_and_another_api_version_are_named(environment: Environment, tmp_path: Path) -> None:
    old = DOUBLE.replace("api_version = 2", "api_version = 7")
    written = [
        write_distribution(environment.site, name, version, name.replace("-", "_"), source, plugin=name)
        for name, version, source in (
            ("acme-double", "1.2.3", DOUBLE),
            ("other-double", "0.5", DOUBLE),
            ("acme-old", "1.2.3", old),
        )
    ]
    try:
        code = "from fastvideo_core.discovery.plugins import load_plugins; load_plugins().backend('DOUBLE_ATTN')"
        asked = environment.run(code, cwd=tmp_path)
        listed = json.loads(environment.fv("plugins", "--json", cwd=tmp_path).stdout)
    finally:
        remove(*(path for paths in written for path in paths))
    assert asked.returncode == 1
    assert "DuplicateProviderError: the attention backend DOUBLE_ATTN is provided by acme-double 1.2.3" in asked.stderr
    assert "and other-double 0.5; uninstall one of them, or set FASTVIDEO_DISABLE_PLUGINS=" in asked.stderr
    (plugin,) = (plugin for plugin in listed if plugin["distribution"] == "acme-old")
    assert plugin["status"] == "broken"
    assert "states api_version 7" in plugin["error"]
    assert "has 2" in plugin["error"]
