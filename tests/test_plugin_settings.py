"""Settings of attention backends: given in Python, in the environment and with --set; checked, shown and recorded."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from click.testing import CliRunner, Result

from fastvideo_core import SamplingParam, VideoGenerator, attach, setting
from fastvideo_core.cli import fv
from fastvideo_core.contract.settings import file_settings
from fastvideo_core.discovery.plugins import Plugin, Plugins, load_plugins
from fastvideo_core.errors import InputError
from tests.support.backends import Recorder

SHORT = ("--height", "32", "--width", "48", "--frames", "5", "--steps", "2")


def halves(value: Any) -> tuple[float, float]:
    first, second = map(float, value.split("/") if isinstance(value, str) else value)
    return first, second


@dataclass(frozen=True)
class Settings:
    share: float = setting(0.5, "a share", ge=0, le=1)
    mode: Literal["fast", "exact"] = setting("fast", "how")
    careful: bool = setting(False, "whether to look twice")
    pair: tuple[float, float] = setting((1.0, 2.0), "two numbers", parse=halves)
    table: Path | None = setting(None, "a file")


class Tunable(Recorder):
    settings_type = Settings
    main_setting = "table"


@pytest.fixture
def tunable(monkeypatch: pytest.MonkeyPatch) -> Tunable:
    """Found everywhere as if it was installed."""
    backend = Tunable("TUNABLE")
    found = Plugins([*load_plugins().all, Plugin("test", "acme", "1.0", backends=[backend])])
    for module in ("engine.attachment", "app.generator", "discovery.plugins", "cli.output"):
        monkeypatch.setattr(f"fastvideo_core.{module}.load_plugins", lambda: found)
    return backend


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(fv, list(arguments))


def test_by_name_before_the_environment_before_the_default(
    tunable: Tunable, wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTVIDEO_TUNABLE_SHARE", "0.25")
    monkeypatch.setenv("FASTVIDEO_TUNABLE_CAREFUL", "yes")
    with attach(wan_pipeline, attention_backend="TUNABLE", attention_config={"share": 1, "pair": "3/4"}):
        assert tunable.settings == Settings(share=1.0, careful=True, pair=(3.0, 4.0))
    with attach(wan_pipeline, attention_backend="TUNABLE"):
        assert tunable.settings == Settings(share=0.25, careful=True), "nothing is left of the attachment before"


def test_a_file_is_for_the_main_setting(tunable: Tunable, wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with attach(wan_pipeline, attention_backend="TUNABLE", attention_config="a.json"):
        assert tunable.settings.table == Path("a.json")
    monkeypatch.setenv("FASTVIDEO_ATTENTION_CONFIG", "b.json")
    with attach(wan_pipeline, attention_backend="TUNABLE", attention_config={"mode": "exact"}):
        assert tunable.settings == Settings(mode="exact", table=Path("b.json"))
    with attach(wan_pipeline, attention_backend="TUNABLE", attention_config={"table": "c.json"}):
        assert tunable.settings.table == Path("c.json")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"share": 2},
            "attention_config['share'] is '2': input should be less than or equal to 1; it sets share: a share",
        ),
        ({"share": "some"}, "attention_config['share'] is 'some': input should be a valid number"),
        (
            {"mode": "quick"},
            "attention_config['mode'] is 'quick': input should be 'fast' or 'exact'; it sets mode: how",
        ),
        ({"careful": "perhaps"}, "attention_config['careful'] is 'perhaps': input should be a valid boolean"),
        ({"pair": "3"}, "attention_config['pair'] is '3': not enough values"),
        ({"pair": 3}, "attention_config['pair'] is '3': it cannot be of type int"),
        ({"shar": 1}, "attention_config['shar']: TUNABLE has no setting 'shar'; did you mean share?"),
        ({"x": 1}, "TUNABLE has no setting 'x'; it has share, mode, careful, pair, table"),
    ],
)
def test_what_does_not_fit_is_refused(tunable: Tunable, wan_pipeline: Any, config: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        attach(wan_pipeline, attention_backend="TUNABLE", attention_config=config)
    attach(wan_pipeline, attention_backend="TUNABLE").detach()


def test_refused_before_any_weight_is_loaded(
    tunable: Tunable, wan_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastvideo_core.app.opening.load_pipeline", lambda *args, **more: pytest.fail("loaded"))
    with pytest.raises(InputError, match=r"gives '0.1', but no attention backend was asked for"):
        VideoGenerator.from_pretrained(wan_folder, attention_config={"share": 0.1})
    with pytest.raises(InputError, match=r"gives 'torch_sdpa\.json', but TORCH_SDPA has no main"):
        VideoGenerator.from_pretrained(wan_folder, attention_backend="TORCH_SDPA", attention_config="torch_sdpa.json")
    monkeypatch.setenv("FASTVIDEO_TUNABLE_SHARE", "-1")
    with pytest.raises(InputError, match="FASTVIDEO_TUNABLE_SHARE is '-1': input should be greater than or equal to 0"):
        VideoGenerator.from_pretrained(wan_folder, attention_backend="TUNABLE")


def test_they_are_in_the_receipt(tunable: Tunable, wan_folder: Path) -> None:
    with VideoGenerator.from_pretrained(
        wan_folder, attention_backend="TUNABLE", attention_config={"pair": "3/4", "table": Path("a.json")}
    ) as generator:
        params = SamplingParam(height=32, width=48, num_frames=5, num_inference_steps=2)
        receipt_path = generator.generate_video("a cat", params).receipt_path
    assert receipt_path is not None
    written = json.loads(receipt_path.read_text())["attention"]["SELF"]["settings"]
    assert written == {"share": 0.5, "mode": "fast", "careful": False, "pair": "3/4", "table": "a.json"}


def test_set_on_the_command_line(tunable: Tunable, wan_folder: Path) -> None:
    chosen = ("--model", str(wan_folder), "--attention-backend", "tunable", "--cache", "TEACACHE")
    given = ("--set", "TUNABLE.share=0.75", "--set", "tunable.careful=1", "--set", "TEACACHE.threshold=0.4")
    done = invoke("generate", "cat", *SHORT, *chosen, *given, "--set", "TEACACHE.coefficients=[1, 0]", "--json")
    assert done.exit_code == 0, done.output
    receipt = json.loads(done.stdout)
    assert receipt["attention"]["SELF"]["settings"]["share"] == 0.75
    assert receipt["attention"]["SELF"]["settings"]["careful"] is True
    assert receipt["cache"]["settings"]["threshold"] == 0.4
    assert receipt["cache"]["distribution"].startswith("fv-teacache ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("share=1",), "--set 'share=1' is not NAME.KEY=VALUE"),
        (("TUNABLE.share",), "--set 'TUNABLE.share' is not NAME.KEY=VALUE"),
        ((".=",), "--set '.=' is not NAME.KEY=VALUE"),
        (("TUNABLE.share=2",), "--set TUNABLE.share is '2': input should be less than or equal to 1"),
        (("TUNABLE.sahre=1",), "TUNABLE has no setting 'sahre'; did you mean share?"),
        (("TUNABLE.share=1", "--set", "TUNABLE.share=0"), "--set gives TUNABLE.share twice: '1' and 'TUNABLE.share=0'"),
        (("TEACACHE.threshold=1",), "is for TEACACHE, but TUNABLE was asked for: name it with --attention-backend or"),
    ],
)
def test_what_set_refuses(
    tunable: Tunable, wan_folder: Path, given: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTVIDEO_ATTENTION_BACKEND", "TUNABLE")
    done = invoke("generate", "cat", "--model", str(wan_folder), *SHORT, "--set", *given)
    assert done.exit_code == 1
    assert message in done.output
    assert isinstance(done.exception, SystemExit)


def test_the_doctor_shows_them_and_what_is_wrong(tunable: Tunable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIDEO_TUNABLE_SHARE", "0.25")
    monkeypatch.setenv("FASTVIDEO_TUNABEL_MODE", "exact")
    well = invoke("doctor")
    assert well.exit_code == 0, well.output
    assert "share = 0.25 (FASTVIDEO_TUNABLE_SHARE): a share" in well.stdout
    assert "mode = fast (default; FASTVIDEO_TUNABLE_MODE): how" in well.stdout
    assert "pair = 1.0,2.0 (default; FASTVIDEO_TUNABLE_PAIR): two numbers" in well.stdout
    assert "FASTVIDEO_TUNABEL_MODE is read by nothing that is installed; did you mean FASTVIDEO_TUNABLE_" in well.stdout
    monkeypatch.setenv("FASTVIDEO_TUNABLE_SHARE", "half")
    ill = invoke("doctor")
    assert ill.exit_code == 1
    assert "FASTVIDEO_TUNABLE_SHARE is 'half': input should be a valid number" in ill.stdout.partition("problems")[2]


def test_settings_that_may_name_a_file_say_so() -> None:
    """Requests to a server cannot give them."""
    plugins = load_plugins()
    owners: list[Any] = [plugins.backend(name)[0] for name in plugins.backend_names()]
    owners += [plugins.policy(name)[0] for name in plugins.policy_names()]
    assert {owner.name: found for owner in owners if (found := file_settings(owner))} == {
        "SLIDING_TILE_ATTN": {"file", ""},
        "TEACACHE": {"coefficients"},
        "MAGCACHE": {"ratios"},
    }
