"""Which backend serves which role, and what is said when none can."""

from __future__ import annotations

from typing import Any

import pytest

from fastvideo_core import Capabilities, Need, Probe, Role
from fastvideo_core.discovery.plugins import Plugin, Plugins
from fastvideo_core.engine.attention.resolve import mismatch, resolve
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


class Untouchable(Recorder):
    """Fails where anything but its class is looked at."""

    def automatic_priority(self, need: Any) -> int:
        pytest.fail("asked for its rank")

    def probe(self) -> Any:
        pytest.fail("probed")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "device":
            pytest.fail("told the device")
        super().__setattr__(name, value)


@pytest.mark.parametrize("capabilities", [{"lossless": False}, {"roles": frozenset({Role.JOINT})}])
def test_nothing_is_asked_of_a_backend_whose_class_rules_it_out(capabilities: dict[str, Any]) -> None:
    assert chosen(plugins_with(Untouchable("OTHER_ATTN", **capabilities))) == {
        need.role.value: "TORCH_SDPA" for need in NEEDS
    }


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


class PerDevice(Recorder):
    """Runs on the second GPU alone, for heads of 64 there; keeps on which device it was asked what."""

    def __init__(self, name: str, rank: int) -> None:
        self.name = name  # type: ignore[misc]  # tests make many of one class
        self.rank = rank
        self.asked: set[tuple[str, str]] = set()

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        self.asked.add((self.device, "capabilities"))
        sizes = frozenset({64 if self.device == "cuda:1" else 128})
        return Capabilities(frozenset(Role), lossless=True, head_dims=sizes, devices=frozenset({"cuda"}))

    def take_settings(self, *given: Any) -> None:
        self.asked.add((self.device, "settings"))
        super().take_settings(*given)

    def probe(self) -> Probe:
        self.asked.add((self.device, "probe"))
        return Probe(self.device == "cuda:1", kernel=f"k on {self.device}", version="1", reason=f"not {self.device}")

    def automatic_priority(self, need: Need) -> int:
        self.asked.add((self.device, "rank"))
        return self.rank


def on(device: str, head_dim: int = 64) -> list[Need]:
    return [Need(Role.SELF, head_dim, "bfloat16", device)]


@pytest.mark.parametrize(
    ("requested", "fallback"), [("GPU_ATTN", None), ("GPU_ATTN", "GPU_ATTN"), (None, None), ("OTHER_ATTN", "GPU_ATTN")]
)
def test_a_backend_is_told_the_device_before_it_is_asked_anything(requested: str | None, fallback: str | None) -> None:
    backend = PerDevice("GPU_ATTN", rank=5)
    plugins = plugins_with(backend, Recorder("OTHER_ATTN", devices=frozenset({"cpu"})))
    resolution = resolve(plugins, requested, "a test", on("cuda:1"), fallback)[Role.SELF]
    assert (resolution.backend, resolution.probe.kernel) == (backend, "k on cuda:1")
    assert {device for device, _ in backend.asked} == {"cuda:1"}
    assert {what for _, what in backend.asked} >= {"capabilities", "probe"}


def test_what_a_backend_has_for_another_gpu_does_not_count() -> None:
    plugins = plugins_with(PerDevice("GPU_ATTN", rank=5))
    with pytest.raises(BackendUnavailableError, match="not cuda:0"):
        resolve(plugins, "GPU_ATTN", "a test", on("cuda:0"))
    assert resolve(plugins, None, "automatic", on("cuda:0", 128))[Role.SELF].backend.name == "TORCH_SDPA"
    with pytest.raises(BackendMismatchError, match="head size is 128, it takes 64"):
        resolve(plugins, "GPU_ATTN", "a test", on("cuda:1", 128))


@pytest.mark.parametrize(
    ("device", "fits"),
    [("cuda", True), ("cuda:0", True), ("cuda:13", True), ("cpu", False), ("mps:0", False), ("cudaX", False)],
)
def test_a_device_fits_by_its_type_and_is_named_in_whole(device: str, fits: bool) -> None:
    problem = mismatch(Recorder(devices=frozenset({"cuda"})), on(device)[0])
    assert problem == (None if fits else f"the model is on {device!r}, it runs on cuda")


class Unranked(Recorder):
    """Asked for nothing but its rank unless it is named: its kernel would be imported."""

    def __init__(self) -> None:
        self.name = "LOSSY_ATTN"  # type: ignore[misc]  # as Recorder's
        self.rank = 0

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        raise AssertionError("nobody asked for it")

    def probe(self) -> Probe:
        raise AssertionError("nobody asked for it")


def test_a_backend_that_never_ranks_is_left_alone() -> None:
    assert chosen(plugins_with(Unranked()))["SELF"] == "TORCH_SDPA"
    twins = plugins_with(Unranked(), Unranked())
    assert chosen(twins)["SELF"] == "TORCH_SDPA", "two of one name that could not be chosen are none's business"


@pytest.mark.parametrize(("rank", "name"), [(-1, "TORCH_SDPA"), (0, "TORCH_SDPA"), (2, "FAST_ATTN")])
def test_a_rank_above_that_of_torch_wins(rank: int, name: str) -> None:
    assert chosen(plugins_with(Recorder("FAST_ATTN", rank=rank)))["SELF"] == name


def test_a_backend_that_serves_another_role_is_no_automatic_choice() -> None:
    plugins = plugins_with(Recorder("CROSS_ATTN", rank=9, roles=frozenset({Role.CROSS})))
    assert chosen(plugins) == {"SELF": "TORCH_SDPA", "CROSS": "CROSS_ATTN"}
