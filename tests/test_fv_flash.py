"""FLASH_ATTN picks the right FlashAttention, calls it rightly, and says what is wrong when it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fv_flash import FlashAttention

from fastvideo_core import AttentionCall, Need, Role
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.engine.attention.resolve import mismatch, resolve
from fastvideo_core.errors import BackendMismatchError, BackendUnavailableError, InputError
from fastvideo_core.testing import AttentionBackendSuite
from fastvideo_core.testing.cases import Inputs, exact_attention
from tests.support.kernels import BROKEN, Site, kernel_site, pretend_gpu

NEED = Need(Role.SELF, 128, "bfloat16", "cuda")


class TestFlashAttention(AttentionBackendSuite):
    backend = "FLASH_ATTN"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with kernel_site(tmp_path / "site", monkeypatch) as site:
        yield site


MODULES = {"2": "flash_attn", "3": "flash_attn_3.flash_attn_interface", "4": "flash_attn.cute"}


@pytest.mark.parametrize(
    ("capability", "installed", "chosen"),
    [
        ((7, 5), "234", ""),
        ((8, 0), "234", "2"),
        ((8, 0), "34", "4"),
        ((8, 0), "3", ""),
        ((8, 9), "24", "2"),
        ((8, 9), "34", "4"),
        ((9, 0), "234", "3"),
        ((9, 0), "23", "3"),
        ((9, 0), "24", "4"),
        ((9, 0), "2", "2"),
        ((10, 0), "234", "4"),
        ((10, 0), "23", "2"),
        ((10, 0), "3", ""),
        ((11, 0), "234", "4"),
        ((11, 0), "23", ""),
        ((12, 0), "234", "4"),
        ((12, 0), "23", "2"),
        ((12, 0), "3", ""),
    ],
)
def test_the_best_version_that_is_installed(
    site: Site, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], installed: str, chosen: str
) -> None:
    pretend_gpu(monkeypatch, capability)
    site.install_flash(*installed)
    probe = FlashAttention().probe()
    assert (probe.available, probe.kernel) == (
        bool(chosen),
        f"{MODULES[chosen]}.flash_attn_func" if chosen else "",
    )


def test_each_gpu_has_its_own_version(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, (9, 0), (8, 0), (10, 0))
    site.install_flash("2", "3", "4")
    backend = FlashAttention()
    for device, version, largest in (("cuda:0", "3", 256), ("cuda:1", "2", 256), ("cuda:2", "4", 128)) * 2:
        backend.device = device
        assert backend.probe().kernel == f"{MODULES[version]}.flash_attn_func"
        assert max(backend.capabilities.head_dims or ()) == largest
    resolution = resolve(load_plugins(), "FLASH_ATTN", "a test", [replace(NEED, device="cuda:1")])[Role.SELF]
    assert resolution.probe.kernel == "flash_attn.flash_attn_func"


def test_settings_that_are_given_later_count(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, (9, 0))
    site.install_flash("2", "3")
    backend = FlashAttention()
    assert backend.probe().kernel == "flash_attn_3.flash_attn_interface.flash_attn_func"
    backend.take_settings({"version": 2})
    assert backend.probe().kernel == "flash_attn.flash_attn_func"


@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_any_one_alone_is_enough_and_is_called_by_its_own_names(
    site: Site, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    pretend_gpu(monkeypatch, (9, 0))
    site.install_flash(version)
    attend = FlashAttention().load()
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, tokens, heads, 16) for tokens, heads in ((5, 4), (7, 2), (7, 2)))
    expected = exact_attention(Inputs(q, k, v, None), 0.3).float()
    torch.testing.assert_close(attend(q, k, v, AttentionCall(Role.CROSS, scale=0.3)), expected)
    strided = torch.stack((q, q), dim=-1)[..., 0]
    torch.testing.assert_close(attend(strided, k, v, AttentionCall(Role.CROSS, scale=0.3)), expected)


@pytest.mark.parametrize(
    ("capability", "installed", "backend"),
    [
        ((7, 5), "24", "TORCH_SDPA"),
        ((8, 0), "", "TORCH_SDPA"),
        ((8, 0), "2", "FLASH_ATTN"),
        ((8, 9), "4", "FLASH_ATTN"),
        ((9, 0), "2", "TORCH_SDPA"),
        ((9, 0), "3", "FLASH_ATTN"),
        ((9, 0), "4", "FLASH_ATTN"),
        ((10, 0), "2", "TORCH_SDPA"),
        ((10, 0), "4", "FLASH_ATTN"),
        ((12, 0), "2", "TORCH_SDPA"),
        ((12, 0), "24", "FLASH_ATTN"),
    ],
)
def test_automatic_takes_it_where_it_is_faster(
    site: Site, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], installed: str, backend: str
) -> None:
    pretend_gpu(monkeypatch, capability)
    site.install_flash(*installed)
    assert resolve(load_plugins(), None, "automatic", [NEED])[Role.SELF].backend.name == backend


def test_a_version_can_be_asked_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, (9, 0))
    site.install_flash("2", "4")
    monkeypatch.setenv("FASTVIDEO_FLASH_ATTN_VERSION", "2")
    assert FlashAttention().probe().kernel == "flash_attn.flash_attn_func"
    monkeypatch.setenv("FASTVIDEO_FLASH_ATTN_VERSION", "3")
    message = r"FlashAttention 3 is not installed \(flash-attn-3 or .*VERSION asks for it. Install it: .* or unset FAST"
    with pytest.raises(BackendUnavailableError, match=message):
        resolve(load_plugins(), "FLASH_ATTN", "a test", [NEED])
    monkeypatch.setenv("FASTVIDEO_FLASH_ATTN_VERSION", "five")
    with pytest.raises(InputError, match="FASTVIDEO_FLASH_ATTN_VERSION is 'five': it must be 2, 3 or 4"):
        resolve(load_plugins(), "FLASH_ATTN", "a test", [NEED])


def test_nothing_installed_says_what_was_looked_for_and_what_to_install(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu(monkeypatch, (8, 0))
    probe = FlashAttention().probe()
    assert "FlashAttention 2 is not installed (flash-attn)" in probe.reason
    assert "FlashAttention 4 is not installed (flash-attn-4)" in probe.reason
    assert probe.remedy == "Install it: pip install flash-attn --no-build-isolation"
    assert not probe.broken
    pretend_gpu(monkeypatch, (10, 0))
    assert FlashAttention().probe().remedy == "Install it: pip install --pre flash-attn-4"


def test_a_kernel_for_another_torch_says_which_and_how_to_rebuild(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, (8, 0))
    site.install("flash-attn", "2.8.3+cu12torch2.7cxx11abiTRUE", "flash_attn", BROKEN)
    probe = FlashAttention().probe()
    assert probe.broken
    assert "FlashAttention 2 (flash-attn 2.8.3+cu12torch2.7cxx11abiTRUE) is installed but does not load" in probe.reason
    assert "undefined symbol: _ZN3c10" in probe.reason
    assert f"It was compiled for torch 2.7, here is torch {torch.__version__}" in probe.reason
    assert probe.remedy.startswith("Build it for this torch: pip install flash-attn --no-build-isolation --no-binary")


@pytest.mark.parametrize(
    ("need", "message"),
    [
        (Need(Role.SELF, 128, "float32", "cuda"), "the model is float32, it takes bfloat16, float16"),
        (Need(Role.SELF, 320, "bfloat16", "cuda"), r"head size is 320, it takes 8 to 256"),
        (Need(Role.SELF, 20, "bfloat16", "cuda"), r"head size is 20, it takes"),
        (Need(Role.SELF, 128, "bfloat16", "cpu"), "the model is on 'cpu', it runs on cuda"),
    ],
)
def test_a_model_that_does_not_fit(site: Site, monkeypatch: pytest.MonkeyPatch, need: Need, message: str) -> None:
    pretend_gpu(monkeypatch, (9, 0))
    site.install_flash("4")
    with pytest.raises(BackendMismatchError, match=message):
        resolve(load_plugins(), "FLASH_ATTN", "a test", [need])
    resolution = resolve(load_plugins(), "FLASH_ATTN", "a test", [need], fallback="TORCH_SDPA")[Role.SELF]
    assert resolution.backend.name == "TORCH_SDPA"
    assert resolution.reason.startswith("FASTVIDEO_ATTENTION_FALLBACK, because FLASH_ATTN (from a test) does not fit")


@pytest.mark.parametrize(
    ("capability", "version", "fits", "too_large"),
    [
        ((8, 0), "2", [8, 64, 80, 128, 256], [264]),
        ((9, 0), "2", [8, 256], [264]),
        ((9, 0), "3", [8, 64, 80, 128, 256], [264]),
        ((10, 0), "2", [8, 256], [264]),
        ((8, 0), "4", [8, 64, 80, 128], [136, 256]),
        ((9, 0), "4", [8, 64, 80, 128, 192, 256], [264]),
        ((10, 0), "4", [8, 128], [136, 256]),
        ((12, 0), "4", [8, 128], [136, 256]),
    ],
)
def test_head_sizes_and_dtypes(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    version: str,
    fits: list[int],
    too_large: list[int],
) -> None:
    pretend_gpu(monkeypatch, capability)
    site.install_flash(version)
    backend = FlashAttention()
    for head_dim in fits:
        for dtype in ("bfloat16", "float16"):
            assert mismatch(backend, Need(Role.JOINT, head_dim, dtype, "cuda:0")) is None
        for dtype in ("float32", "float64"):
            assert mismatch(backend, Need(Role.JOINT, head_dim, dtype, "cuda:0"))
    for head_dim in (*too_large, 4, 12, 20, 100):
        assert mismatch(backend, Need(Role.JOINT, head_dim, "bfloat16", "cuda:0"))


def test_a_gpu_that_is_too_old_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, (7, 5))
    site.install_flash("2")
    with pytest.raises(BackendUnavailableError, match=r"runs on compute capability 8.x, .*; Tesla T4 has 7.5"):
        resolve(load_plugins(), "FLASH_ATTN", "a test", [NEED])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said_as_such(site: Site) -> None:
    site.install_flash("2")
    probe = FlashAttention().probe()
    assert (probe.available, probe.broken) == (False, False)
    assert f"needs an NVIDIA GPU, torch {torch.__version__} sees none" in probe.reason
