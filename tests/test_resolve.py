"""Which backend serves which role, and what is said when none can."""

from __future__ import annotations

from typing import Any

import pytest

from fastvideo_core import Need, Probe, Role
from fastvideo_core.discovery.plugins import Plugin, Plugins
from fastvideo_core.engine.attention.resolve import resolve
from fastvideo_core.engine.attention.route import LoadedBackend
from fastvideo_core.errors import (
    BackendMismatchError,
    BackendUnavailableError,
    DuplicateProviderError,
    UnknownBackendError,
)
from tests.support.backends import Recorder, core_alone, plugins_with

NEEDS = [Need(role, 128, "bfloat16", "cpu") for role in (Role.SELF, Role.CROSS)]


def chosen(plugins: Plugins, requested: str | None = None) -> dict[str, str]:
    return {role.value: r.backend.name for role, r in resolve(plugins, requested, "a test", NEEDS).items()}


def test_nothing_asked_for_is_torch_sdpa() -> None:
    assert chosen(core_alone()) == {"SELF": "TORCH_SDPA", "CROSS": "TORCH_SDPA"}


def test_automatic_takes_the_highest_ranked_lossless_backend_that_is_available_and_fits() -> None:
    fast = Recorder("FAST_ATTN", rank=5)
    others = [
        Recorder("LOSSY_ATTN", rank=9, lossless=False),
        Recorder("ABSENT_ATTN", rank=9, probe=Probe(False, reason="no GPU")),
        Recorder("SMALL_ATTN", rank=9, head_dims=frozenset({64})),
        Recorder("NAMED_ONLY_ATTN"),
    ]
    assert chosen(plugins_with(fast, *others)) == {"SELF": "FAST_ATTN", "CROSS": "FAST_ATTN"}


def test_a_role_that_is_not_served_goes_to_the_automatic_backend_and_says_so() -> None:
    plugins = plugins_with(Recorder("HALF_ATTN", roles=frozenset({Role.SELF}), lossless=False))
    resolutions = resolve(plugins, "HALF_ATTN", "a test", NEEDS)
    assert [r.backend.name for r in resolutions.values()] == ["HALF_ATTN", "TORCH_SDPA"]
    assert resolutions[Role.SELF].reason == "requested by a test"
    assert resolutions[Role.CROSS].reason == "HALF_ATTN does not serve CROSS: automatic"


@pytest.mark.parametrize(
    ("name", "package"), [("FLASH_ATTN", "fv-flash"), ("SLIDING_TILE_ATTN", "fv-sta"), ("SAGE_ATTN", "fv-sage")]
)
def test_a_first_party_name_says_what_to_install(name: str, package: str) -> None:
    with pytest.raises(UnknownBackendError, match=f"installed: TORCH_SDPA; to get {name}: pip install {package}$"):
        chosen(core_alone(), name)


@pytest.mark.parametrize(
    ("typo", "hint"),
    [
        ("TORCH_SPDA", "did you mean TORCH_SDPA?"),
        ("FLASH_ATN", r"did you mean FLASH_ATTN\? \(pip install fv-flash\)"),
    ],
)
def test_a_typo_gets_the_nearest_name(typo: str, hint: str) -> None:
    with pytest.raises(UnknownBackendError, match=rf"unknown attention backend '{typo}' \(from a test\).*{hint}"):
        chosen(core_alone(), typo)


def test_a_broken_plugin_is_the_cause_of_what_it_would_have_provided() -> None:
    cause = ImportError("undefined symbol")
    plugins = Plugins([*core_alone().all, Plugin("sage", "fv-sage", "2.0", status="broken", error=cause)])
    with pytest.raises(UnknownBackendError, match=r"fv-sage 2.0 .*broken \(ImportError: undefined symbol\)") as raised:
        chosen(plugins, "SAGE_ATTN")
    assert raised.value.__cause__ is cause
    assert chosen(plugins)["SELF"] == "TORCH_SDPA"


def test_a_plugin_that_is_switched_off_is_named() -> None:
    plugins = Plugins([*core_alone().all, Plugin("sage", "fv-sage", "2.0", status="disabled")])
    with pytest.raises(UnknownBackendError, match="switched off by FASTVIDEO_DISABLE_PLUGINS"):
        chosen(plugins, "SAGE_ATTN")


def test_a_kernel_that_is_not_there_is_an_error_with_its_remedy() -> None:
    plugins = plugins_with(Recorder("GPU_ATTN", probe=Probe(False, reason="no kernel found", remedy="Install it")))
    with pytest.raises(BackendUnavailableError, match=r"acme 1.0\) cannot run here: no kernel found. Install it"):
        chosen(plugins, "GPU_ATTN")


@pytest.mark.parametrize(
    ("capabilities", "message"),
    [
        ({"head_dims": frozenset({64, 96})}, "head size is 128, it takes 64, 96"),
        ({"head_dims": frozenset(range(8, 80, 8))}, r"it takes 8 to 72 \(9 sizes\)"),
        ({"dtypes": frozenset({"float16"})}, "the model is bfloat16, it takes float16"),
        ({"devices": frozenset({"cuda"})}, "the model is on 'cpu', it runs on cuda"),
        ({"roles": frozenset({Role.JOINT})}, "serves JOINT attention, this model has CROSS and SELF"),
    ],
)
def test_what_does_not_fit_is_an_error_with_both_sides(capabilities: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendMismatchError, match=message):
        chosen(plugins_with(Recorder("TEST_ATTN", **capabilities)), "TEST_ATTN")


def test_two_lossless_backends_of_one_name_are_no_automatic_choice() -> None:
    plugins = plugins_with(Recorder("TWIN_ATTN", rank=3), Recorder("TWIN_ATTN", rank=3))
    with pytest.raises(DuplicateProviderError, match="TWIN_ATTN"):
        chosen(plugins)


class Liar(Recorder):
    """Says that its kernel is there, and cannot load it."""

    def load(self) -> Any:
        raise ImportError("undefined symbol")


class Thrower(Recorder):
    def probe(self) -> Any:
        raise ValueError("no luck")


def test_a_kernel_that_does_not_load_after_all_is_an_error_with_its_cause() -> None:
    resolutions = resolve(plugins_with(Liar("LIAR_ATTN")), "LIAR_ATTN", "a test", NEEDS)
    with pytest.raises(BackendUnavailableError, match=r"LIAR_ATTN said .* loading it raised ImportError: undefined"):
        LoadedBackend.load(resolutions[Role.SELF])


def test_a_probe_that_raises_is_an_answer() -> None:
    plugins = plugins_with(Thrower("THROWER_ATTN", rank=9))
    assert chosen(plugins)["SELF"] == "TORCH_SDPA"
    with pytest.raises(BackendUnavailableError, match="its probe raised ValueError: no luck"):
        chosen(plugins, "THROWER_ATTN")


GPU_ONLY = Recorder("GPU_ATTN", devices=frozenset({"cuda"}))
ABSENT = Recorder("GPU_ATTN", probe=Probe(False, reason="no kernel found", remedy="Install it"))


@pytest.mark.parametrize(
    ("backend", "problem"),
    [(GPU_ONLY, "does not fit: the model is on 'cpu', it runs on cuda"), (ABSENT, "cannot run here: no kernel found")],
)
def test_a_fallback_is_used_only_when_it_was_named_and_says_why(backend: Recorder, problem: str) -> None:
    plugins = plugins_with(backend)
    with pytest.raises((BackendMismatchError, BackendUnavailableError), match=problem):
        resolve(plugins, "GPU_ATTN", "a test", NEEDS)
    resolution = resolve(plugins, "GPU_ATTN", "a test", NEEDS, "TORCH_SDPA")[Role.CROSS]
    assert resolution.backend.name == "TORCH_SDPA"
    assert resolution.reason.startswith("FASTVIDEO_ATTENTION_FALLBACK, because GPU_ATTN (from a test")
    assert problem in resolution.reason


def test_a_fallback_is_no_remedy_for_a_name_that_nobody_provides() -> None:
    with pytest.raises(UnknownBackendError, match=r"unknown attention backend 'GPU_ATTN' \(from a"):
        resolve(core_alone(), "GPU_ATTN", "a test", NEEDS, "TORCH_SDPA")
    with pytest.raises(UnknownBackendError, match=r"backend 'SPDA' \(from FASTVIDEO_ATTENTION_FALLBACK\)"):
        resolve(plugins_with(Recorder()), "RECORDER", "a test", NEEDS, "SPDA")


def test_a_fallback_that_cannot_run_either_is_an_error() -> None:
    plugins = plugins_with(ABSENT, Recorder("OTHER_ATTN", devices=frozenset({"cuda"})))
    with pytest.raises(BackendMismatchError, match=r"OTHER_ATTN \(from FASTVIDEO_ATTENTION_FALLBACK\) does not fit"):
        resolve(plugins, "GPU_ATTN", "a test", NEEDS, "OTHER_ATTN")


def test_a_fallback_serves_where_the_kernel_does_not_load() -> None:
    found = resolve(plugins_with(Liar("LIAR_ATTN")), "LIAR_ATTN", "a test", NEEDS, "TORCH_SDPA")
    resolution = LoadedBackend.load(found[Role.SELF]).resolution
    assert resolution.backend.name == "TORCH_SDPA"
    assert "loading it raised ImportError: undefined symbol" in resolution.reason
