"""SAGE_ATTN calls SageAttention by its real names, is never chosen unasked, and notices output that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fv_sage import SageAttention
from fv_sage.guard import FiniteGuard

from fastvideo_core import AttentionCall, AttentionFunction, Need, Role, attach
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.engine.attention.resolve import resolve
from fastvideo_core.errors import BackendMismatchError, BackendOutputError, BackendUnavailableError, InputError
from fastvideo_core.testing import AttentionBackendSuite
from fastvideo_core.testing.cases import Inputs, exact_attention
from tests.support.backends import Recorder, plugins_with
from tests.support.kernels import BROKEN, SAGE, SAGE_1, SAGE_3, Site, kernel_site, pretend_gpu
from tests.support.models import run

NEEDS = [Need(role, 128, "bfloat16", "cuda") for role in (Role.SELF, Role.CROSS)]


class TestSageAttention(AttentionBackendSuite):
    backend = "SAGE_ATTN"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    pretend_gpu(monkeypatch, (9, 0))
    with kernel_site(tmp_path / "site", monkeypatch) as site:
        yield site


def chosen(requested: str | None = "SAGE_ATTN", needs: list[Need] = NEEDS, **options: Any) -> dict[str, str]:
    resolutions = resolve(load_plugins(), requested, "a test", needs, **options)
    return {role.value: resolution.backend.name for role, resolution in resolutions.items()}


def test_cross_attention_stays_exact_unless_asked_otherwise(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("sageattention", "1.0.6", "sageattention", SAGE)
    assert chosen() == {"SELF": "SAGE_ATTN", "CROSS": "TORCH_SDPA"}
    monkeypatch.setenv("FASTVIDEO_SAGE_CROSS", "1")
    assert chosen() == {"SELF": "SAGE_ATTN", "CROSS": "SAGE_ATTN"}
    monkeypatch.setenv("FASTVIDEO_SAGE_CROSS", "perhaps")
    with pytest.raises(InputError, match="FASTVIDEO_SAGE_CROSS is 'perhaps': input should be a valid boolean"):
        chosen()


def test_it_is_never_chosen_unasked(site: Site) -> None:
    site.install("sageattention", "1.0.6", "sageattention", SAGE)
    assert chosen(None) == {"SELF": "TORCH_SDPA", "CROSS": "TORCH_SDPA"}


@pytest.mark.parametrize(
    ("capability", "installed", "kernel"),
    [
        ((9, 0), [("sageattention", "2.2.0")], "sageattention.sageattn"),
        ((8, 0), [("sageattention", "1.0.6"), ("sageattn3", "1.0.0")], "sageattention.sageattn"),
        ((12, 0), [("sageattention", "2.2.0"), ("sageattn3", "1.0.0")], "sageattn3.sageattn3_blackwell"),
        ((12, 0), [("sageattention", "2.2.0")], "sageattention.sageattn"),
    ],
)
def test_the_newest_version_that_runs_here(
    site: Site, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], installed: Any, kernel: str
) -> None:
    pretend_gpu(monkeypatch, capability)
    for name, version in installed:
        site.install(name, version, name, SAGE if name == "sageattention" else SAGE_3)
    probe = SageAttention().probe()
    assert (probe.available, probe.kernel, probe.version) == (
        True,
        kernel,
        installed[-1][1] if "3" in kernel else installed[0][1],
    )


@pytest.mark.parametrize(
    ("package", "version", "source"),
    [("sageattention", "1.0.6", SAGE_1), ("sageattention", "2.2.0", SAGE), ("sageattn3", "1.0.0", SAGE_3)],
)
@pytest.mark.parametrize("scale", [None, 0.3])
def test_the_scale_reaches_the_kernel(
    site: Site, monkeypatch: pytest.MonkeyPatch, package: str, version: str, source: str, scale: float | None
) -> None:
    pretend_gpu(monkeypatch, (12, 0))
    site.install(package, version, package, source)
    attend = SageAttention().load()
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, tokens, 4, 64) for tokens in (5, 7, 7))
    expected = exact_attention(Inputs(q, k, v, None), scale).float()
    torch.testing.assert_close(attend(q, k, v, AttentionCall(Role.SELF, scale=scale)), expected)
    strided = torch.stack((q, q), dim=-1)[..., 0]
    torch.testing.assert_close(attend(strided, k, v, AttentionCall(Role.SELF, scale=scale)), expected)


@pytest.mark.parametrize("keys", [1, 63, 64, 100, 8192])
def test_what_version_1_does_wrong_is_made_good(site: Site, keys: int) -> None:
    site.install("sageattention", "1.0.6", "sageattention", SAGE_1)
    attend = SageAttention().load()
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, tokens, 2, 64) for tokens in (5, keys, keys))
    before = k.clone()
    expected = exact_attention(Inputs(q, k, v, None), None).float()
    torch.testing.assert_close(attend(q, k, v, AttentionCall(Role.SELF)), expected)
    assert torch.equal(k, before)


@pytest.mark.parametrize(
    ("version", "need", "message"),
    [
        ("1.0.6", Need(Role.SELF, 256, "bfloat16", "cuda"), "head size is 256, it takes 64, 96, 128"),
        ("1.0.6", Need(Role.SELF, 80, "bfloat16", "cuda"), "head size is 80, it takes 64, 96, 128"),
        ("2.2.0", Need(Role.SELF, 256, "bfloat16", "cuda"), r"head size is 256, it takes 8 to 128"),
        ("2.2.0", Need(Role.SELF, 64, "float32", "cuda"), "the model is float32, it takes bfloat16, float16"),
        ("2.2.0", Need(Role.SELF, 64, "bfloat16", "cpu"), "the model is on 'cpu', it runs on cuda"),
    ],
)
def test_a_model_that_does_not_fit(site: Site, version: str, need: Need, message: str) -> None:
    site.install("sageattention", version, "sageattention", SAGE)
    with pytest.raises(BackendMismatchError, match=message):
        chosen(needs=[need])
    assert chosen(needs=[need], fallback="TORCH_SDPA") == {"SELF": "TORCH_SDPA"}


def test_what_to_do_where_it_is_missing_or_broken(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendUnavailableError, match=r"SageAttention 2 is not installed \(sageattention 2.x\).*1.x"):
        chosen()
    pretend_gpu(monkeypatch, (10, 0))
    site.install("sageattention", "2.2.0", "sageattention", SAGE)
    with pytest.raises(BackendUnavailableError, match=r"SageAttention 2 runs on .* 12.x; NVIDIA B200 has 10.0"):
        chosen()
    pretend_gpu(monkeypatch, (12, 0))
    site.install("sageattn3", "1.0.0", "sageattn3", BROKEN)
    assert chosen()["SELF"] == "SAGE_ATTN", "version 2 is there"


def test_a_broken_build_says_how_to_rebuild(site: Site) -> None:
    site.install("sageattention", "2.2.0", "sageattention", BROKEN)
    with pytest.raises(BackendUnavailableError, match=r"does not load: .*undefined symbol.*Build it for this torch"):
        chosen()


class Poisoned(Recorder):
    """Watched as SAGE_ATTN is; from a chosen call on, its output has a NaN in it."""

    def __init__(self, step: int, layer: int) -> None:
        super().__init__("POISONED", roles=frozenset({Role.SELF}))
        self.place = (step, layer)
        self.guard = FiniteGuard("POISONED")
        self.calls = 0

    def load(self) -> AttentionFunction:
        plain = super().load()

        def attend(query: Any, key: Any, value: Any, call: AttentionCall) -> torch.Tensor:
            self.calls += 1
            result = plain(query, key, value, call)
            if (call.step, call.layer) == self.place:
                result = result.clone()
                result[0, -1, 0, 0] = float("nan")
            return result

        return self.guard.watch(attend)

    def finish_run(self) -> None:
        self.guard.finish()


@pytest.mark.parametrize(("step", "layer", "calls"), [(0, 1, 2), (1, 0, 6), (2, 1, 10)])
def test_the_guard_ends_a_run_at_the_first_output_that_is_not_finite(
    wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch, step: int, layer: int, calls: int
) -> None:
    backend = Poisoned(step, layer)
    monkeypatch.setattr("fastvideo_core.engine.attachment.load_plugins", lambda: plugins_with(backend))
    bare = run(wan_pipeline)
    with attach(wan_pipeline, attention_backend="POISONED") as fv:
        message = (
            rf"POISONED returned NaN or infinity first in layer {layer} of SELF attention, step {step}, branch 'cond'"
        )
        with pytest.raises(BackendOutputError, match=message):
            run(wan_pipeline)
        assert backend.calls == calls, "the forward pass after the fault is not run"
        backend.place = (99, 0)
        assert abs(run(wan_pipeline) - bare).max() < 1e-4
        assert fv.receipt.attention["SELF"].calls == 12


def test_the_guard_sees_the_last_call_of_a_run(wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Poisoned(2, 1)
    monkeypatch.setattr("fastvideo_core.engine.attachment.load_plugins", lambda: plugins_with(backend))
    with (
        attach(wan_pipeline, attention_backend="POISONED"),
        pytest.raises(BackendOutputError, match="layer 1 of SELF attention, step 2"),
    ):
        run(wan_pipeline, guidance_scale=1.0)


@pytest.mark.parametrize(("value", "guarded"), [("", True), ("1", True), ("0", False)])
def test_the_guard_can_be_switched_off(site: Site, monkeypatch: pytest.MonkeyPatch, value: str, guarded: bool) -> None:
    source = SAGE.replace("return sdpa(", "return float('nan') * sdpa(")
    site.install("sageattention", "1.0.6", "sageattention", source)
    monkeypatch.setenv("FASTVIDEO_SAGE_GUARD", value)
    backend = SageAttention()
    q = torch.zeros(1, 3, 1, 64)
    assert backend.load()(q, q, q, AttentionCall(Role.SELF)).isnan().all()
    if guarded:
        with pytest.raises(BackendOutputError, match="SAGE_ATTN returned NaN"):
            backend.finish_run()
    else:
        backend.finish_run()
