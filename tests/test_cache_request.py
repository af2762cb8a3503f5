"""Which caching policy runs: argument, environment, names that nobody provides, settings that do not fit."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvideo_core import CachePolicy, SamplingParam, Signal, TeaCacheParams, VideoGenerator, attach, setting
from fastvideo_core.discovery.plugins import Plugin, Plugins, _register
from fastvideo_core.engine.caching.choice import choose_policy
from fastvideo_core.errors import (
    CacheError,
    DuplicateProviderError,
    InputError,
    PluginError,
    UnknownPolicyError,
)
from tests.support.backends import core_alone
from tests.support.models import SIZE
from tests.support.models import run_to_latents as run
from tests.support.policies import Scripted

SHORT: dict[str, Any] = {**SIZE, "guidance_scale": 3.0, "seed": 7, "save_video": False}


def plugins_with(*policies: type[CachePolicy], **changes: Any) -> Plugins:
    return Plugins([*core_alone().all, Plugin("test", "acme", "1.0", policies=list(policies), **changes)])


def chosen(asked: Any, **options: Any) -> Any:
    return choose_policy(plugins_with(Scripted), asked, **options)


def test_the_argument_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(None) is None
    monkeypatch.setenv("FASTVIDEO_CACHE_POLICY", "scripted@CR")
    assert chosen(None).policy == Scripted("CR")
    assert chosen(None).origin == "requested by FASTVIDEO_CACHE_POLICY"
    assert chosen("Scripted@CF").policy == Scripted("CF")
    assert chosen("none") is None
    monkeypatch.setenv("FASTVIDEO_CACHE_POLICY", "None")
    assert chosen(None) is None
    own = Scripted("CRR")
    assert chosen(own).policy is own


def test_settings_by_name_beside_or_without_the_main_one() -> None:
    assert chosen("SCRIPTED@CR:ahead=true").policy == Scripted("CR", ahead=True)
    assert chosen("SCRIPTED@ahead=true").policy == Scripted(ahead=True)
    assert chosen("SCRIPTED", defaults={"SCRIPTED": {"script": "CFC"}, "OTHER": {"x": 1}}).policy == Scripted("CFC")
    assert chosen("SCRIPTED@CR", defaults={"SCRIPTED": {"script": "CFC"}}).policy == Scripted("CR")
    assert chosen("SCRIPTED", config={"script": "CF"}, defaults={"SCRIPTED": {"script": "CFC"}}).policy == Scripted(
        "CF"
    )
    assert chosen("SCRIPTED@CR", config={"ahead": True}).policy == Scripted("CR", ahead=True)


@pytest.mark.parametrize(
    ("asked", "config", "message"),
    [
        (
            "SCRIPTED@CR",
            {"script": "CF"},
            "'script' of SCRIPTED is given twice: 'CR' by cache='SCRIPTED@CR', 'CF' by cache_config['script']; leave",
        ),
        ("SCRIPTED", {"scrip": "CF"}, "SCRIPTED has no setting 'scrip'; did you mean script?"),
        (
            None,
            {"script": "CF"},
            "cache_config['script'] gives 'CF', but no caching policy was asked for that it could",
        ),
        ("none", {"script": "CF"}, "cache_config['script'] gives 'CF', but no caching policy was asked for"),
        (Scripted("C"), {"script": "CF"}, "cache= is an object, which has its settings already"),
    ],
)
def test_settings_that_would_be_ignored(asked: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        chosen(asked, config=config)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ("SCRIPTD", UnknownPolicyError, r"'SCRIPTD' \(from cache=\); installed: SCRIPTED; did you mean SCRIPTED\?"),
        ("TEACACHE", UnknownPolicyError, r"installed: SCRIPTED; to get TEACACHE: pip install fv-teacache"),
        ("TEACASH@0.1", UnknownPolicyError, r"did you mean TEACACHE\? \(pip install fv-teacache\)"),
        (
            "SCRIPTED@C:scrip=R",
            InputError,
            r"scrip in cache='SCRIPTED@C:scrip=R': SCRIPTED has no setting 'scrip'; did you mean",
        ),
        ("SCRIPTED@C:R", InputError, r"cache='SCRIPTED@C:R' is none of NAME, NAME@VALUE and NAME@VALUE:SETTING=VALUE"),
        ("@@@", InputError, r"cache='@@@' names nothing in front of the @"),
        ("@0.1", InputError, r"cache='@0.1' names nothing in front of the @; write NAME@VALUE, such as TEACACHE@0.08"),
        (0.1, InputError, r"cache= takes a policy's name or object, not '0.1', of type float"),
    ],
)
def test_what_cannot_be_chosen(asked: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        chosen(asked)


def test_a_value_for_a_policy_that_has_no_main_setting() -> None:
    class Bare(Scripted):
        name = "BARE"
        main_setting = None

    with pytest.raises(InputError, match="cache='BARE@1' gives '1', but BARE has no main setting to give it to"):
        choose_policy(plugins_with(Bare), "BARE@1")


def test_two_policies_of_one_name_name_both_distributions() -> None:
    both = Plugins([*plugins_with(Scripted).all, Plugin("more", "bolt", "2.0", policies=[Scripted])])
    with pytest.raises(DuplicateProviderError, match=r"caching policy SCRIPTED is provided by acme 1.0 and bolt 2.0"):
        choose_policy(both, "SCRIPTED")


def test_a_broken_plugin_is_named() -> None:
    broken = Plugins([Plugin("teacache", "fv-teacache", "0.1", status="broken", error=ImportError("no torch"))])
    with pytest.raises(UnknownPolicyError, match=r"fv-teacache 0.1 provides nothing because it is broken.*no torch"):
        choose_policy(broken, "TEACACHE")


def test_a_hook_that_returns_something_else_breaks_the_plugin() -> None:
    from types import ModuleType

    from fastvideo_core import hookimpl

    for returned, message in (([Scripted()], "list of subclasses of CachePolicy"), (Scripted, "must return a list")):
        module = ModuleType("acme")
        module.__dict__.update(api_version=2)

        def fastvideo_cache_policies(returned: Any = returned) -> Any:
            return returned

        module.fastvideo_cache_policies = hookimpl(lambda: returned)  # type: ignore[attr-defined]  # noqa: B023
        with pytest.raises(PluginError, match=message):
            _register(Plugin("acme", "acme", "1.0"), module)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """SCRIPTED, and a TEACACHE that is one too, as if they were installed."""

    @dataclass
    class Tea(Scripted):
        name = "TEACACHE"
        main_setting = "threshold"

        threshold: float = setting(0.0, "the threshold")
        use_ret_steps: bool = setting(False, "the variant")
        coefficients: Any = setting(None, "the coefficients")
        script: str = "CR"

    for module in ("engine.attachment", "app.generator"):
        monkeypatch.setattr(f"fastvideo_core.{module}.load_plugins", lambda: plugins_with(Scripted, Tea))


def test_generate_video_takes_a_policy_for_one_video(scripted: None, wan_folder: Path) -> None:
    with VideoGenerator.from_pretrained(wan_folder) as generator:
        plain = generator.generate_video("cat", **SHORT)
        cached = generator.generate_video("cat", cache="SCRIPTED@CR", **SHORT)
        assert cached.receipt.cache is not None
        assert cached.receipt.as_dict()["cache"] == {
            "policy": "SCRIPTED",
            "distribution": "acme 1.0",
            "reason": "requested by cache=",
            "settings": {"script": "CR", "ahead": False},
            "schedule": {"cond": "CRR", "uncond": "CRR"},
            "origins": {"script": "cache='SCRIPTED@CR'"},
            "details": {},
        }
        assert cached.receipt.steps_computed == {"cond": 1, "uncond": 1}
        assert cached.receipt.steps_skipped == {"cond": 2, "uncond": 2}
        again = generator.generate_video("cat", **SHORT)
        assert np.array_equal(again.frames, plain.frames)
        assert (again.receipt.cache, again.receipt.steps_skipped) == (None, {})
        assert not np.array_equal(cached.frames, plain.frames)


def test_enable_teacache_and_its_parameters(scripted: None, wan_folder: Path) -> None:
    params = SamplingParam(**SHORT)
    params.teacache_params.teacache_thresh = 0.08
    with VideoGenerator.from_pretrained(wan_folder) as generator:
        receipt = generator.generate_video("cat", params, enable_teacache=True).receipt
        assert receipt.cache is not None
        assert (receipt.cache.settings["threshold"], receipt.cache.settings["use_ret_steps"]) == (0.08, False)
        assert receipt.cache.origins == {"threshold": "teacache_params.threshold"}
        both = generator.generate_video("cat", params, enable_teacache=True, cache="teacache@0.2").receipt
        assert both.cache is not None
        assert both.cache.settings["threshold"] == 0.2
        assert generator.generate_video("cat", params).receipt.cache is None
        with pytest.raises(InputError, match=r"enable_teacache=True asks for TEACACHE, cache='SCRIPTED'"):
            generator.generate_video("cat", params, enable_teacache=True, cache="SCRIPTED")
        with pytest.raises(InputError, match=r"teacache_params must be TeaCacheParams, not 0.08"):
            generator.generate_video("cat", params, teacache_params=0.08)
    assert TeaCacheParams(coefficients=[1.0]).settings() == {"coefficients": [1.0]}


def test_an_environment_that_cannot_be_met_is_refused_before_any_weight_is_loaded(
    scripted: None, wan_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastvideo_core.app.opening.load_pipeline", lambda *args: pytest.fail("weights were loaded"))
    monkeypatch.setenv("FASTVIDEO_CACHE_POLICY", "SCRIPTD")
    with pytest.raises(UnknownPolicyError, match="from FASTVIDEO_CACHE_POLICY"):
        VideoGenerator.from_pretrained(wan_folder)
    monkeypatch.setenv("FASTVIDEO_CACHE_POLICY", "SCRIPTED")
    monkeypatch.setattr(Scripted, "for_model", lambda self, model: Scripted("C", "NOISE"))  # type: ignore[arg-type]
    with pytest.raises(CacheError, match="SCRIPTED has signal='NOISE', it must be of type Signal"):
        VideoGenerator.from_pretrained(wan_folder)


def test_the_environment_chooses_for_attach_too(wan_pipeline: Any, scripted: None, monkeypatch: Any) -> None:
    monkeypatch.setenv("FASTVIDEO_CACHE_POLICY", "SCRIPTED@CRC")
    with attach(wan_pipeline) as fv:
        run(wan_pipeline)
        assert fv.receipt.steps_skipped == {"cond": 1, "uncond": 1}
        fv.use_cache("none")
        run(wan_pipeline)
        assert fv.receipt.cache is None


def test_a_policy_s_signal_is_part_of_the_contract() -> None:
    assert [signal.value for signal in Signal] == [
        "NONE",
        "HIDDEN",
        "TIME_EMBEDDING",
        "TIME_PROJECTION",
        "MODULATED_INPUT",
        "FIRST_BLOCK_OUTPUT",
    ]


@pytest.mark.filterwarnings("ignore:TEACACHE. threshold 0.2 is outside")
@pytest.mark.parametrize(
    ("name", "threshold", "use_ret_steps"),
    [
        ("Wan2.1-T2V-1.3B-Diffusers", 0.08, True),
        ("Wan2.1-T2V-14B-Diffusers", 0.2, False),
        ("Wan2.1-I2V-14B-480P", 0.26, True),
        ("models--Wan-AI--Wan2.1-I2V-14B-720P-Diffusers/snapshots/5f1c", 0.3, True),
    ],
)
def test_enable_teacache_is_as_in_fastvideo_s_preset(
    name: str, threshold: float, use_ret_steps: bool, wan_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("fv_teacache")
    folder = tmp_path / name
    shutil.copytree(wan_folder, folder)
    with VideoGenerator.from_pretrained(folder) as generator:
        made = generator.generate_video("cat", SamplingParam(**SHORT), enable_teacache=True).receipt.cache
        assert made is not None
        assert (made.settings["threshold"], made.settings["use_ret_steps"]) == (threshold, use_ret_steps)
        both = generator.generate_video("cat", SamplingParam(**SHORT), enable_teacache=True, cache="teacache@0.2")
        assert both.receipt.cache is not None
        assert (both.receipt.cache.settings["threshold"], both.receipt.cache.settings["use_ret_steps"]) == (
            0.2,
            use_ret_steps,
        )
        params = SamplingParam(**SHORT)
        params.teacache_params.use_ret_steps = not use_ret_steps
        own = generator.generate_video("cat", params, enable_teacache=True, cache="TEACACHE@0.2").receipt.cache
        assert own is not None
        assert (own.settings["threshold"], own.settings["use_ret_steps"]) == (0.2, not use_ret_steps)
        ours = generator.generate_video("cat", SamplingParam(**SHORT), cache="TEACACHE@0.2").receipt.cache
        assert ours is not None
        assert ours.settings["use_ret_steps"] is False
