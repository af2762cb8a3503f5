"""SAGE_ATTN calls SageAttention by its real names, is never chosen unasked, and notices output that is not finite."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fv_sage import SageAttention

from fastvideo_core import AttentionCall, Need, Role
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.engine.attention.resolve import mismatch, resolve
from fastvideo_core.errors import BackendMismatchError, BackendUnavailableError, InputError
from fastvideo_core.testing import AttentionBackendSuite
from fastvideo_core.testing.cases import Inputs, exact_attention
from tests.support.kernels import BROKEN, SAGE, SAGE_1, SAGE_3, Site, kernel_site, pretend_gpu

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


def test_it_is_never_chosen_nor_imported_unasked(site: Site) -> None:
    site.install("sageattention", "1.0.6", "sageattention", SAGE)
    assert chosen(None) == {"SELF": "TORCH_SDPA", "CROSS": "TORCH_SDPA"}
    assert "sageattention" not in sys.modules
    assert chosen()["SELF"] == "SAGE_ATTN"
    assert "sageattention" in sys.modules


PACKAGES = {
    "1": ("sageattention", "1.0.6", SAGE_1),
    "2": ("sageattention", "2.2.0", SAGE),
    "3": ("sageattn3", "1.0.0", SAGE_3),
}
FUNCTIONS = {"sageattention": "sageattention.sageattn", "sageattn3": "sageattn3.sageattn3_blackwell"}


def install(site: Site, versions: str) -> None:
    for version in versions:
        package, number, source = PACKAGES[version]
        site.install(package, number, package, source)


@pytest.mark.parametrize(
    ("capability", "installed", "chosen"),
    [
        ((7, 5), "13", ""),
        ((8, 0), "13", "1"),
        ((8, 9), "23", "2"),
        ((8, 0), "3", ""),
        ((9, 0), "1", "1"),
        ((9, 0), "23", "2"),
        ((9, 0), "3", ""),
        ((10, 0), "13", "3"),
        ((10, 0), "1", "1"),
        ((10, 0), "2", ""),
        ((11, 0), "13", ""),
        ((11, 0), "23", ""),
        ((12, 0), "23", "3"),
        ((12, 0), "2", "2"),
        ((12, 0), "1", "1"),
    ],
)
def test_the_newest_version_that_runs_here(
    site: Site, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], installed: str, chosen: str
) -> None:
    pretend_gpu(monkeypatch, capability)
    install(site, installed)
    probe = SageAttention().probe()
    package, version, _ = PACKAGES.get(chosen, ("", "", ""))
    assert (probe.available, probe.kernel, probe.version) == (bool(chosen), FUNCTIONS.get(package, ""), version)


def test_each_gpu_has_its_own_version(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, (9, 0), (12, 0))
    install(site, "23")
    backend = SageAttention()
    for device, version, tolerance in (("cuda:0", "2.2.0", 0.05), ("cuda:1", "1.0.0", 0.25)) * 2:
        backend.device = device
        assert backend.probe().version == version
        assert backend.capabilities.tolerance == tolerance


@pytest.mark.parametrize(
    ("version", "fits", "others", "tolerance"),
    [
        ("1", [64, 96, 128], [8, 32, 56, 72, 80, 104, 120, 136, 192, 256], 0.05),
        ("2", [8, 32, 64, 72, 80, 96, 120, 128], [4, 20, 68, 100, 136, 256], 0.05),
        ("3", [64, 128], [8, 32, 80, 96, 136, 256], 0.25),
    ],
)
def test_head_sizes_dtypes_and_tolerance(
    site: Site, monkeypatch: pytest.MonkeyPatch, version: str, fits: list[int], others: list[int], tolerance: float
) -> None:
    pretend_gpu(monkeypatch, (12, 0))
    install(site, version)
    backend = SageAttention()
    for head_dim in fits:
        for dtype, taken in (("bfloat16", True), ("float16", True), ("float32", False)):
            assert (mismatch(backend, Need(Role.SELF, head_dim, dtype, "cuda:0")) is None) == taken
    for head_dim in others:
        assert mismatch(backend, Need(Role.SELF, head_dim, "bfloat16", "cuda:0"))
    assert (backend.capabilities.lossless, backend.capabilities.tolerance) == (False, tolerance)


@pytest.mark.parametrize("version", PACKAGES)
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("heads", [1, 4])
def test_attention_at_the_scale_that_was_asked_for_and_inputs_left_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch, version: str, scale: float | None, heads: int
) -> None:
    """Versions 1 and 3 write to the keys that they are given; those of one head lie in memory as they want them."""
    pretend_gpu(monkeypatch, (12, 0))
    install(site, version)
    attend = SageAttention().load()
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, tokens, heads, 64) for tokens in (5, 7, 7))
    before = [x.clone() for x in (q, k, v)]
    expected = exact_attention(Inputs(q, k, v, None), scale).float()
    torch.testing.assert_close(attend(q, k, v, AttentionCall(Role.SELF, scale=scale)), expected)
    strided = torch.stack((q, q), dim=-1)[..., 0]
    torch.testing.assert_close(attend(strided, k, v, AttentionCall(Role.SELF, scale=scale)), expected)
    assert all(torch.equal(x, old) for x, old in zip((q, k, v), before, strict=True))


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
