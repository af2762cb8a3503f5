"""diffusers' own attention backends as ours: the suite, what is missing for the others, and a whole pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models import attention_dispatch
from fv_diffusers import backend_for, names_in_diffusers

from fastvideo_core import AttentionCall, Capabilities, Role, attach
from fastvideo_core.kernels.hub import _module
from fastvideo_core.testing import AttentionBackendSuite
from fastvideo_core.testing.cases import Inputs, exact_attention, relative_error
from tests.support.kernels import FLASH_3, KERNELS, SAGE_3, Site, kernel_site, pretend_gpu
from tests.support.models import build_hunyuan_pipeline, build_wan_pipeline, run

NATIVE = "diffusers.models.attention_dispatch._native_attention"


class TestNative(AttentionBackendSuite):
    backend = "DIFFUSERS_NATIVE"


class Flex(type(backend_for("flex"))):  # type: ignore[misc]  # the class is made from diffusers' name
    """In one dtype and two roles, with less to trace."""

    name = "DIFFUSERS_FLEX"
    capabilities = Capabilities(
        roles=frozenset({Role.CROSS, Role.JOINT}), lossless=True, dtypes=frozenset({"bfloat16"}), grouped_heads=True
    )


@pytest.mark.slow
class TestFlex(AttentionBackendSuite):
    backend = Flex()


def test_cudnn_serves_a_single_key_which_torch_has_no_kernel_for() -> None:
    query, key, value = torch.randn(2, 3, 4, 8), torch.randn(2, 1, 2, 8), torch.randn(2, 1, 2, 8)
    call = AttentionCall(role=Role.CROSS, layer=0, step=0, branch="cond", scale=None)
    result = backend_for("_native_cudnn").load()(query, key, value, call)
    query, key, value = (one.transpose(1, 2) for one in (query, key, value))
    exact = torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(result, exact.transpose(1, 2))


@pytest.mark.parametrize("scale", [None, 0.0, 0.3])
def test_flex_repeats_groups_of_heads_in_float32_and_pads_small_ones(scale: float | None) -> None:
    query, key, value = torch.randn(2, 5, 4, 8), torch.randn(2, 7, 2, 8), torch.randn(2, 7, 2, 8)
    call = AttentionCall(role=Role.CROSS, layer=0, step=0, branch="cond", scale=scale)
    result = Flex().load()(query, key, value, call)
    query, key, value = (one.transpose(1, 2) for one in (query, key, value))
    exact = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=scale, enable_gqa=True)
    torch.testing.assert_close(result, exact.transpose(1, 2))


def test_every_backend_of_diffusers_has_a_name() -> None:
    values = [name.value for name in attention_dispatch.AttentionBackendName]
    assert names_in_diffusers() == values
    names = {backend_for(value).name for value in values}
    assert len(names) == len(values)
    assert names >= {"DIFFUSERS_NATIVE", "DIFFUSERS_NATIVE_CUDNN", "DIFFUSERS_FLASH_4_HUB", "DIFFUSERS_SAGE_HUB"}


@pytest.mark.parametrize("value", names_in_diffusers())
def test_what_is_declared_is_what_diffusers_checks(value: str) -> None:
    can = backend_for(value).capabilities
    checks = {
        getattr(check, "__name__", "") for check in attention_dispatch._AttentionBackendRegistry._constraints[value]
    }
    takes = attention_dispatch._AttentionBackendRegistry._supported_arg_names[value]
    if "_check_qkv_dtype_bf16_or_fp16" in checks:
        assert can.dtypes == frozenset({"bfloat16", "float16"})
    if "_check_qkv_dtype_bf16" in checks:
        assert can.dtypes == frozenset({"bfloat16"})
    if "_check_device_cuda" in checks:
        assert can.devices == frozenset({"cuda"})
    if "_check_head_dim_64_or_128" in checks:
        assert can.head_dims == frozenset({64, 128})
    assert not can.grouped_heads or "enable_gqa" in takes
    assert can.lossless == ("sage" not in value)


@pytest.mark.parametrize(
    ("value", "device", "reason"),
    [
        ("_flash_3", "cuda", "DIFFUSERS_FLASH_3 needs a GPU, torch"),
        ("sage", "cpu", "DIFFUSERS_SAGE runs on cuda, not on cpu"),
        ("_native_npu", "cuda", "DIFFUSERS_NATIVE_NPU runs on npu, not on cuda"),
        ("of_tomorrow", "cuda", "diffusers has no attention backend 'of_tomorrow' that can be reached"),
    ],
)
def test_a_probe_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, value: str, device: str, reason: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    backend = backend_for(value)
    backend.device = device
    probe = backend.probe()
    assert not probe.available
    assert probe.reason.startswith(reason)
    assert probe.remedy


@pytest.mark.parametrize(
    ("value", "reason", "remedy"),
    [
        ("_flash_3", "Flash Attention 3 backend '_flash_3' is not usable", "Build FA3 beta release from source"),
        ("xformers", "Xformers Attention backend 'xformers' is not usable", "Install `xformers>="),
        ("flash_hub", "Backend 'flash_hub' is not usable because the `kernels` package", "Install it with `pip inst"),
    ],
)
def test_diffusers_own_words_say_which_package_is_missing(
    monkeypatch: pytest.MonkeyPatch, value: str, reason: str, remedy: str
) -> None:
    monkeypatch.setattr(attention_dispatch, "_CAN_USE_FLASH_ATTN_3", False)
    monkeypatch.setattr(attention_dispatch, "_CAN_USE_XFORMERS_ATTN", False)
    monkeypatch.setattr(attention_dispatch, "is_kernels_available", lambda: False)
    pretend_gpu(monkeypatch, (9, 0))
    probe = backend_for(value).probe()
    assert (probe.available, probe.broken) == (False, False)
    assert probe.reason.startswith(reason)
    assert probe.remedy.startswith(remedy)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    _module.cache_clear()
    for variable in ("LOCAL_KERNELS", "FASTVIDEO_HUB_KERNELS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(attention_dispatch, "is_kernels_available", lambda: True)
    monkeypatch.setattr(attention_dispatch, "is_kernels_version", lambda operator, version: True)
    pretend_gpu(monkeypatch, (12, 0))
    with kernel_site(tmp_path / "site", monkeypatch) as site:
        site.install("kernels", "0.17.2", "kernels", KERNELS)
        yield site
    _module.cache_clear()


def test_a_kernel_of_the_hub_is_not_fetched_unasked(site: Site) -> None:
    probe = backend_for("aiter_fa2_hub").probe()
    assert (probe.available, probe.remedy) == (False, "Set FASTVIDEO_HUB_KERNELS=1")
    assert probe.reason.startswith("DIFFUSERS_AITER_FA2_HUB would be fetched from the hub (kernels-community/aiter")


HUB = [
    ("flash_4_hub", "kernels-community/flash-attn4", FLASH_3),
    ("sage_blackwell_hub", "SageAttention/sage-blackwell", SAGE_3),
]


@pytest.mark.parametrize(("value", "repository", "source"), HUB)
@pytest.mark.parametrize("scale", [None, 0.2])
def test_diffusers_gets_the_kernel_that_was_loaded(
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: Any,
    repository: str,
    source: str,
    scale: float | None,
) -> None:
    """Also one that takes no scale."""
    (tmp_path / "k" / "build").mkdir(parents=True)
    (tmp_path / "k" / "build" / "__init__.py").write_text(source)
    monkeypatch.setenv("LOCAL_KERNELS", f"{repository}={tmp_path / 'k'}")
    monkeypatch.setattr(attention_dispatch._HUB_KERNELS_REGISTRY[value], "kernel_fn", None)
    backend = backend_for(value)
    assert backend.probe().kernel.startswith(f"{repository}@v")
    torch.manual_seed(0)
    inputs = Inputs(torch.randn(1, 9, 2, 64), torch.randn(1, 9, 2, 64), torch.randn(1, 9, 2, 64), None)
    result = backend.load()(inputs.query, inputs.key, inputs.value, AttentionCall(Role.SELF, scale=scale))
    assert relative_error(result, exact_attention(inputs, scale)) < 1e-5


@pytest.mark.parametrize("build", [build_wan_pipeline, build_hunyuan_pipeline], ids=["wan", "hunyuan"])
def test_a_pipeline_runs_with_it_policies_included(build: Any) -> None:
    """HunyuanVideo's text has padding, which reaches the kernel as shorter keys."""
    pipe = build()
    with attach(pipe, attention_backend="TORCH_SDPA", cache="FIRSTBLOCK@0.3"):
        expected = run(pipe)
    with attach(pipe, attention_backend="DIFFUSERS_NATIVE", cache="FIRSTBLOCK@0.3") as fv:
        np.testing.assert_array_equal(run(pipe), expected)
        served = next(iter(fv.receipt.attention.values()))
    assert (served.kernel, served.version) == (NATIVE, version("diffusers"))
