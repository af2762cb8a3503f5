"""A setting is the same setting however it is given, and whether a backend or a policy has it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fv_firstblock import FirstBlockCache
from fv_magcache import MagCache
from fv_taylorseer import TaylorSeer
from fv_teacache.policy import TeaCache

from fastvideo_core import CachePolicy, Signal, attach, setting
from fastvideo_core.cli import fv
from fastvideo_core.discovery.plugins import Plugin, Plugins, load_plugins
from fastvideo_core.errors import InputError
from tests.support.backends import Recorder
from tests.support.models import run_to_latents as run
from tests.support.policies import Scripted


@dataclass(frozen=True)
class Settings:
    level: float = setting(0.5, "how much", ge=0, le=1)
    rounds: int = setting(2, "how often")
    twice: bool = setting(False, "whether to look twice")


class Kernel(Recorder):
    settings_type = Settings
    main_setting = "level"

    def __init__(self) -> None:
        super().__init__("KERNEL")


@dataclass
class Policy(Scripted):
    name = "POLICY"
    main_setting = "level"
    level: float = setting(0.5, "how much", ge=0, le=1)
    rounds: int = setting(2, "how often")
    twice: bool = setting(False, "whether to look twice")


@dataclass(frozen=True)
class Kind:
    """How a backend, or a policy, is named and shown.

    Attributes:
        name, argument, variable, option: its own, and what names it in Python, the environment and on the command line.
        receipt: what the receipt of an attachment tells of it.
    """

    name: str
    argument: str
    config: str
    variable: str
    option: str
    receipt: Callable[[Any], Any]


KINDS = [
    Kind(
        "KERNEL",
        "attention_backend",
        "attention_config",
        "FASTVIDEO_ATTENTION_BACKEND",
        "--attention-backend",
        lambda attached: attached.receipt.attention["SELF"],
    ),
    Kind(
        "POLICY", "cache", "cache_config", "FASTVIDEO_CACHE_POLICY", "--cache", lambda attached: attached.receipt.cache
    ),
]
both = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend and a policy, found everywhere as if they were installed."""

    def load() -> Plugins:
        return Plugins([*INSTALLED, Plugin("test", "acme", "1.0", backends=[Kernel()], policies=[Policy])])

    for module in ("engine.attachment", "app.generator", "discovery.plugins", "cli.output", "app.bench.setup"):
        monkeypatch.setattr(f"fastvideo_core.{module}.load_plugins", load)


INSTALLED = load_plugins().all


def receipt_of(kind: Kind, pipe: Any, **asked: Any) -> Any:
    with attach(pipe, **asked) as attached:
        run(pipe, num_inference_steps=1)
        return kind.receipt(attached)


def doctor(*options: str) -> str:
    done = CliRunner().invoke(fv, ["doctor", *options])
    assert "Traceback" not in done.output
    return done.output


@both
def test_python(kind: Kind, wan_pipeline: Any) -> None:
    told = receipt_of(kind, wan_pipeline, **{kind.argument: kind.name, kind.config: {"level": 0.25}})
    assert told.settings["level"] == 0.25
    assert told.origins == {"level": f"{kind.config}['level']"}


@both
def test_a_value_without_a_name(kind: Kind, wan_pipeline: Any) -> None:
    told = receipt_of(kind, wan_pipeline, **{kind.argument: kind.name, kind.config: 0.25})
    assert (told.settings["level"], told.origins) == (0.25, {"level": f"{kind.config}="})


@both
@pytest.mark.parametrize("nothing", ["", None, {}])
def test_nothing_is_no_value(kind: Kind, wan_pipeline: Any, nothing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"FASTVIDEO_{kind.name}_LEVEL", " ")
    told = receipt_of(kind, wan_pipeline, **{kind.argument: kind.name, kind.config: nothing})
    assert (told.settings["level"], told.origins) == (0.5, {})


@both
def test_the_command_line(kind: Kind, wan_folder: Path) -> None:
    assert f"level = 0.25 (--set {kind.name}.level): how much" in doctor(
        kind.option, kind.name, "--set", f"{kind.name}.level=.25"
    )
    size = ("--height", "32", "--width", "48", "--frames", "5", "--steps", "1", "--json")
    done = CliRunner().invoke(
        fv,
        [
            "generate",
            "cat",
            "--model",
            str(wan_folder),
            *size,
            kind.option,
            kind.name,
            "--set",
            f"{kind.name}.level=.25",
        ],
    )
    assert done.exit_code == 0, done.output
    assert f'"level": "--set {kind.name}.level"' in done.stdout


@both
def test_a_variable_of_its_own(kind: Kind, wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"FASTVIDEO_{kind.name}_LEVEL", " +0.25 ")
    told = receipt_of(kind, wan_pipeline, **{kind.argument: kind.name})
    assert told.settings["level"] == 0.25
    assert told.origins == {"level": f"FASTVIDEO_{kind.name}_LEVEL"}
    assert f"level = 0.25 (FASTVIDEO_{kind.name}_LEVEL): how much" in doctor()


@both
def test_text_with_a_value(kind: Kind, wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{kind.name}@0.25:twice=True"
    origins = {"level": f"{kind.argument}='{text}'", "twice": f"twice in {kind.argument}='{text}'"}
    told = receipt_of(kind, wan_pipeline, **{kind.argument: text})
    assert (told.settings["level"], told.settings["twice"]) == (0.25, True)
    assert told.origins == origins
    assert f"level = 0.25 ({origins['level']}): how much" in doctor(kind.option, text)
    monkeypatch.setenv(kind.variable, text)
    told = receipt_of(kind, wan_pipeline)
    assert (told.settings["level"], told.settings["twice"]) == (0.25, True)
    assert told.origins["level"] == f"{kind.variable}='{text}'"
    assert f"twice = true (twice in {kind.variable}='{text}'): whether to look twice" in doctor()


@both
def test_what_is_said_comes_before_the_environment(
    kind: Kind, wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FASTVIDEO_{kind.name}_LEVEL", "0.75")
    assert receipt_of(kind, wan_pipeline, **{kind.argument: f"{kind.name}@0.25"}).settings["level"] == 0.25
    monkeypatch.delenv(f"FASTVIDEO_{kind.name}_LEVEL")
    monkeypatch.setenv(kind.variable, f"{kind.name}@0.75:rounds=3")
    told = receipt_of(kind, wan_pipeline, **{kind.config: {"level": 0.25}})
    assert (told.settings["level"], told.settings["rounds"]) == (0.25, 3)


@both
@pytest.mark.parametrize(
    ("text", "config", "environment", "message"),
    [
        ("@0.1:level=0.2", {}, {}, "given twice: '0.1' by {argument}='{name}@0.1:level=0.2', '0.2' by level in"),
        ("@level=0.1:level=0.2", {}, {}, "the setting 'level' of {name} is given twice"),
        ("@0.1", {"level": 0.1}, {}, "'0.1' by {argument}='{name}@0.1', '0.1' by {config}['level']; leave one out"),
        (
            None,
            {},
            {"LEVEL": "0.1", "": "@0.2"},
            "'0.2' by {variable}='{name}@0.2', '0.1' by FASTVIDEO_{name}_LEVEL; leave one out",
        ),
    ],
)
def test_two_values_for_one_setting(
    kind: Kind,
    wan_pipeline: Any,
    text: str | None,
    config: Any,
    environment: dict[str, str],
    message: str,
    monkeypatch: Any,
) -> None:
    for name, value in environment.items():
        variable = f"FASTVIDEO_{kind.name}_{name}" if name else kind.variable
        monkeypatch.setenv(variable, value if name else kind.name + value)
    asked: dict[str, Any] = {kind.argument: text and kind.name + text, kind.config: config}
    with pytest.raises(InputError, match=re.escape(message.format(**vars(kind)))):
        attach(wan_pipeline, **asked)


@both
@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("level", ".2", 0.2),
        ("level", "+0.2", 0.2),
        ("level", "1", 1.0),
        ("level", 1, 1.0),
        ("rounds", "+3", 3),
        ("rounds", "3.0", 3),
        ("twice", "True", True),
        ("twice", "yes", True),
        ("twice", " off ", False),
        ("twice", True, True),
    ],
)
def test_values_are_read_as_a_person_means_them(
    kind: Kind, wan_pipeline: Any, name: str, value: Any, meant: Any
) -> None:
    told = receipt_of(kind, wan_pipeline, **{kind.argument: kind.name, kind.config: {name: value}})
    assert told.settings[name] == meant
    assert type(told.settings[name]) is type(meant)


@both
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("level", value) for value in ("nan", math.nan, "0,2", True, "", None, [0.2])],
        *[("rounds", value) for value in (math.inf, "inf", 2.5, "2.5", True, "1e2")],
        *[("twice", value) for value in (1, 0, "2", "maybe", 1.0, None)],
    ],
)
def test_values_that_mean_something_else_are_refused(kind: Kind, wan_pipeline: Any, name: str, value: Any) -> None:
    given: dict[str, Any] = {kind.argument: kind.name, kind.config: {name: value}}
    with pytest.raises(InputError, match=re.escape(f"{kind.config}['{name}'] is {str(value)!r}: ")):
        attach(wan_pipeline, **given)


def test_infinities_are_refused_where_there_is_no_limit() -> None:
    @dataclass
    class Free(Scripted):
        name = "FREE"
        width: float = setting(1.0, "how wide")

    for value in (math.inf, "-inf", "Infinity", "nan"):
        with pytest.raises(InputError, match=r"must be finite|valid number"):
            Free(width=value)  # type: ignore[arg-type]  # what is tried


def test_settings_of_nothing_are_refused(wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = "but no caching policy was asked for that it could be for: set cache= or FASTVIDEO_CACHE_POLICY"
    with pytest.raises(InputError, match=re.escape(f"cache='none@0.5' gives '0.5', {nothing}")):
        attach(wan_pipeline, cache="none@0.5")
    monkeypatch.setenv("FASTVIDEO_CACHE_POLICY", "none")
    with pytest.raises(InputError, match=re.escape(f"cache_config['level'] gives '0.5', {nothing}")):
        attach(wan_pipeline, cache_config={"level": 0.5})
    monkeypatch.setenv("FASTVIDEO_CACHE_POLICY", "none@0.5")
    with pytest.raises(InputError, match=re.escape(f"FASTVIDEO_CACHE_POLICY='none@0.5' gives '0.5', {nothing}")):
        attach(wan_pipeline)
    monkeypatch.delenv("FASTVIDEO_CACHE_POLICY")
    monkeypatch.setenv("FASTVIDEO_ATTENTION_CONFIG", "windows.json")
    with pytest.raises(InputError, match=r"FASTVIDEO_ATTENTION_CONFIG gives 'windows.json', but no attention backend"):
        attach(wan_pipeline)


def test_a_value_may_have_an_equals_sign(wan_pipeline: Any) -> None:
    with pytest.raises(InputError, match=r"coefficients 'of=mine.json' are no file"):
        attach(wan_pipeline, cache="TEACACHE@0.1:coefficients=of=mine.json")


def test_an_object_that_is_attached_again_forgets_what_it_was_given(wan_pipeline: Any) -> None:
    kernel = Kernel()
    first = receipt_of(KINDS[0], wan_pipeline, attention_backend=kernel, attention_config={"level": 0.25})
    again = receipt_of(KINDS[0], wan_pipeline, attention_backend=kernel, attention_config={"rounds": 3})
    assert (first.settings["level"], again.settings["level"], again.settings["rounds"]) == (0.25, 0.5, 3)
    assert again.origins == {"rounds": "attention_config['rounds']"}


def test_a_policy_made_of_settings_says_where_they_stand() -> None:
    with pytest.raises(InputError, match=re.escape("cache_config['level'] is 'much': input should be a valid number")):
        Policy.from_settings({"level": "much"})


def test_no_number_of_several_may_be_infinite() -> None:
    @dataclass
    class Several(Scripted):
        name = "SEVERAL"
        widths: tuple[float, ...] = setting((1.0,), "how wide each is")

    assert Several(widths=[1.0, 2.0]).widths == (1.0, 2.0)  # type: ignore[arg-type]  # what is tried
    with pytest.raises(InputError, match="must be finite"):
        Several(widths=[1.0, math.inf])  # type: ignore[arg-type]  # what is tried


@pytest.mark.parametrize("none", ["none", "None", " NONE ", None])
def test_what_can_be_left_to_the_plugin_can_be_given_as_none(none: Any) -> None:
    assert TeaCache.from_settings({"threshold": none}).threshold is None


def test_the_type_of_a_setting_is_the_one_of_the_class_that_declares_it_last() -> None:
    @dataclass
    class Rougher(Policy):
        name = "ROUGHER"
        level: int = setting(1, "how much")

    assert Rougher.from_settings({"level": "3"}).settings_used()["level"] == 3
    with pytest.raises(InputError, match="valid integer"):
        Rougher.from_settings({"level": "0.5"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TeaCache(True), "TEACACHE: threshold is 'True': input should be a valid number"),
        (lambda: TeaCache(math.nan), "TEACACHE: threshold is 'nan'"),
        (lambda: TeaCache(0.1, max_skips=True), "TEACACHE: max_skips is 'True': input should be a valid integer"),
        (lambda: TeaCache(0.1, coefficients=[True, 2]), "TEACACHE: coefficients is '[True, 2]': they must be finite"),
        (lambda: TeaCache(0.1, use_ret_steps=1), "TEACACHE: use_ret_steps is '1': input should be a valid boolean"),  # type: ignore[arg-type]  # what is tried
        (lambda: FirstBlockCache(True), "FIRSTBLOCK: threshold is 'True': input should be a valid number"),
        (lambda: FirstBlockCache(-1), "FIRSTBLOCK: threshold is '-1': input should be greater than or equal to 0"),
        (lambda: MagCache(ratios=[1.0, True]), "MAGCACHE: ratios is '[1.0, True]': they must be numbers, one a step"),
        (lambda: MagCache(max_skips=2.5), "MAGCACHE: max_skips is '2.5': input should be a valid integer"),  # type: ignore[arg-type]  # what is tried
        (lambda: TaylorSeer(0), "TAYLORSEER: interval is '0': input should be greater than or equal to 1"),
    ],
)
def test_a_policy_made_in_python_is_checked_as_all_are(make: Callable[[], CachePolicy], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        make()


def test_a_policy_made_in_python_says_so_in_the_receipt(wan_pipeline: Any) -> None:
    told = receipt_of(KINDS[1], wan_pipeline, cache=FirstBlockCache(0.3))
    assert told.settings["threshold"] == 0.3
    assert told.origins == {"threshold": "FirstBlockCache(…)"}
    assert receipt_of(KINDS[1], wan_pipeline, cache=FirstBlockCache()).origins == {}


def test_the_environment_is_not_for_objects(wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIDEO_FIRSTBLOCK_THRESHOLD", "0.9")
    assert receipt_of(KINDS[1], wan_pipeline, cache=FirstBlockCache(0.3)).settings["threshold"] == 0.3


def test_what_is_wrong_with_a_policy_s_variable_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIDEO_FIRSTBLOCK_THRESHOLD", "some")
    told = doctor()
    assert "FASTVIDEO_FIRSTBLOCK_THRESHOLD is 'some': input should be a valid number" in told.partition("\nproblems")[2]
    assert "threshold = none (default; FASTVIDEO_TEACACHE_THRESHOLD, TEACACHE@VALUE): the predicted change" in told
    assert "interval = 3 (default; FASTVIDEO_TAYLORSEER_INTERVAL, TAYLORSEER@VALUE): every how many steps" in told


def test_signals_and_other_fields_are_no_settings(wan_pipeline: Any) -> None:
    assert Policy(signal=Signal.NONE).settings_used().keys() == {"script", "ahead", "level", "rounds", "twice"}
    with pytest.raises(InputError, match="POLICY has no setting 'signal'"):
        attach(wan_pipeline, cache="POLICY@signal=NONE")
