"""Kernels of the hub: what is cached is used, what is not is fetched only where that was asked for.

The package `kernels` is a stand-in with its interface: the real one brings forty other distributions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fv_flash import FlashAttention
from fv_sage import SageAttention

from fastvideo_core import AttentionCall, Role
from fastvideo_core.kernels import HubKernel
from fastvideo_core.kernels.hub import _module
from fastvideo_core.testing.cases import Inputs, exact_attention, relative_error
from tests.support.kernels import FLASH_3, KERNELS, SAGE, SAGE_3, Site, kernel_site, pretend_gpu

ANY = HubKernel("A kernel", "someone/a-kernel", 2, "inner.attend")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    _module.cache_clear()
    monkeypatch.delenv("LOCAL_KERNELS", raising=False)
    monkeypatch.delenv("FASTVIDEO_HUB_KERNELS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with kernel_site(tmp_path / "site", monkeypatch) as site:
        yield site
    _module.cache_clear()


def with_kernels(site: Site) -> None:
    site.install("kernels", "0.17.2", "kernels", KERNELS)


def local(monkeypatch: pytest.MonkeyPatch, folder: Path, repository: str, source: str) -> None:
    """A kernel of that repository in a folder, as LOCAL_KERNELS names one."""
    (folder / "build").mkdir(parents=True)
    (folder / "build" / "__init__.py").write_text(source)
    monkeypatch.setenv("LOCAL_KERNELS", f"{repository}={folder}")


def test_without_the_package_the_probe_says_how_to_get_it(site: Site) -> None:
    probe = ANY.probe()
    assert (probe.available, probe.broken) == (False, False)
    assert probe.reason == (
        "A kernel (someone/a-kernel@v2) comes from the hub, for which the package kernels is not installed"
    )
    assert probe.remedy == "Install it: pip install kernels, and set FASTVIDEO_HUB_KERNELS=1"


@pytest.mark.parametrize("value", [None, "", "0", "yes"])
def test_nothing_is_fetched_unasked(site: Site, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    with_kernels(site)
    if value is not None:
        monkeypatch.setenv("FASTVIDEO_HUB_KERNELS", value)
    probe = ANY.probe()
    assert (probe.available, probe.broken, probe.remedy) == (False, False, "Set FASTVIDEO_HUB_KERNELS=1")
    assert probe.reason == (
        "A kernel would be fetched from the hub (someone/a-kernel@v2), which FASTVIDEO_HUB_KERNELS=1 allows; "
        "the cache does not have it: Version 2 of 'someone/a-kernel' is not available in the local cache"
    )


def test_what_cannot_be_fetched_is_a_fault(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with_kernels(site)
    monkeypatch.setenv("FASTVIDEO_HUB_KERNELS", "1")
    probe = ANY.probe()
    assert (probe.available, probe.broken) == (False, True)
    assert probe.reason == (
        "A kernel could not be had from the hub (someone/a-kernel@v2): fetching version=2 revision=None of "
        "someone/a-kernel, trusting ['someone/a-kernel']"
    )


def test_a_revision_is_asked_for_instead_of_a_version(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with_kernels(site)
    monkeypatch.setenv("FASTVIDEO_HUB_KERNELS", "1")
    pinned = HubKernel("A kernel", "someone/a-kernel", 2, "attend", revision="0123abc")
    assert "(someone/a-kernel@0123abc): fetching version=None revision=0123abc" in pinned.probe().reason


def test_what_is_there_is_used(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_kernels(site)
    local(monkeypatch, tmp_path / "k", "someone/a-kernel", "class inner:\n    attend = staticmethod(lambda x: x + 1)\n")
    probe = ANY.probe()
    assert (probe.available, probe.kernel, probe.version) == (True, "someone/a-kernel@v2:inner.attend", "v2")
    assert ANY.load()(torch.zeros(2)).tolist() == [1, 1]


def test_a_kernel_that_lacks_its_function_is_no_kernel(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_kernels(site)
    local(monkeypatch, tmp_path / "k", "someone/a-kernel", "")
    assert "has no attribute 'inner'" in ANY.probe().reason


BACKENDS = [
    (
        FlashAttention,
        (9, 0),
        "kernels-community/flash-attn3",
        FLASH_3,
        "kernels-community/flash-attn3@v1:flash_attn_func",
    ),
    (SageAttention, (9, 0), "SageAttention/sage-attention", SAGE, "SageAttention/sage-attention@v3:sageattn"),
    (
        SageAttention,
        (12, 0),
        "SageAttention/sage-blackwell",
        SAGE_3,
        "SageAttention/sage-blackwell@v1:sageattn3_blackwell",
    ),
]


@pytest.mark.parametrize(("kind", "capability", "repository", "source", "kernel"), BACKENDS)
def test_backends_take_their_kernel_from_the_hub_where_nothing_else_is(
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[FlashAttention | SageAttention],
    capability: tuple[int, int],
    repository: str,
    source: str,
    kernel: str,
) -> None:
    pretend_gpu(monkeypatch, capability)
    with_kernels(site)
    without = kind().probe()
    assert not without.available
    assert f"would be fetched from the hub ({kernel.partition(':')[0]})" in without.reason
    local(monkeypatch, tmp_path / "k", repository, source)
    backend = kind()
    assert backend.probe().kernel == kernel
    assert backend.capabilities.lossless == (kind is FlashAttention)
    torch.manual_seed(0)
    inputs = Inputs(torch.randn(1, 9, 2, 64), torch.randn(1, 9, 2, 64), torch.randn(1, 9, 2, 64), None)
    result = backend.load()(inputs.query, inputs.key, inputs.value, AttentionCall(Role.SELF, scale=0.2))
    assert relative_error(result, exact_attention(inputs, 0.2)) < 1e-5


def test_what_is_installed_goes_before_what_the_hub_has(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu(monkeypatch, (9, 0))
    with_kernels(site)
    local(monkeypatch, tmp_path / "k", "kernels-community/flash-attn3", FLASH_3)
    site.install_flash("2")
    assert FlashAttention().probe().kernel == "flash_attn.flash_attn_func"


def test_a_version_that_was_asked_for_comes_from_the_hub_too(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu(monkeypatch, (9, 0))
    with_kernels(site)
    site.install_flash("2")
    local(monkeypatch, tmp_path / "k", "kernels-community/flash-attn3", FLASH_3)
    backend = FlashAttention()
    backend.take_settings({"version": 3})
    assert backend.probe().kernel == "kernels-community/flash-attn3@v1:flash_attn_func"
