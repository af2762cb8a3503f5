"""Kernels of other distributions: on which GPU they are looked for, and how their tensors must lie."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastvideo_core.kernels import Kernel, first_that_runs, gpu_generation, with_plain_strides
from tests.support.kernels import Site, kernel_site, pretend_gpu

HOPPER = Kernel("For Hopper", ("flash-attn-3",), ("flash_attn_interface",), "attend", frozenset({9}), "pip install 3")
AMPERE = Kernel("For Ampere", ("flash-attn",), ("flash_attn",), "attend", frozenset({8}), "pip install 2")
BLACKWELL = Kernel("For Blackwell", ("sageattn3",), ("sageattn3",), "attend", frozenset({10, 12}), "pip install s")

SOURCE = "def attend(q, k, scale=None):\n    return q"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with kernel_site(tmp_path / "site", monkeypatch) as site:
        yield site


@pytest.mark.parametrize(
    ("device", "generation", "kernel"),
    [
        ("cuda", 9, "flash_attn_interface.attend"),
        ("cuda:0", 9, "flash_attn_interface.attend"),
        ("cuda:1", 8, "flash_attn.attend"),
        ("cpu", 9, "flash_attn_interface.attend"),
        ("cpu:1", 9, "flash_attn_interface.attend"),
    ],
)
def test_the_gpu_that_is_named_decides(
    site: Site, monkeypatch: pytest.MonkeyPatch, device: str, generation: int, kernel: str
) -> None:
    pretend_gpu(monkeypatch, (9, 0), (8, 6))
    site.install("flash-attn-3", "3.0.0", "flash_attn_interface", SOURCE)
    site.install("flash-attn", "2.8.3", "flash_attn", SOURCE)
    assert gpu_generation(device) == generation
    chosen, probe = first_that_runs((BLACKWELL, HOPPER, AMPERE), device)
    assert (probe.available, probe.kernel) == (True, kernel)
    assert chosen.probe(device) == probe


def test_what_is_said_of_another_gpu_names_that_gpu(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, (9, 0), (7, 5))
    assert HOPPER.probe("cuda:1").reason == "For Hopper runs on compute capability 9.x; Tesla T4 has 7.5"
    assert BLACKWELL.probe("cuda:0").reason.endswith("runs on compute capability 10.x, 12.x; NVIDIA H100 has 9.0")


@pytest.mark.parametrize(
    ("capabilities", "device", "reason"),
    [
        ([(9, 0)], "cuda:1", "sees 1 and no cuda:1"),
        ([(9, 0), (9, 0)], "cuda:2", "sees 2 and no cuda:2"),
        ([(9, 0), (9, 0)], "cuda:1", ""),
    ],
)
def test_a_gpu_that_is_not_there(
    site: Site, monkeypatch: pytest.MonkeyPatch, capabilities: list[tuple[int, int]], device: str, reason: str
) -> None:
    pretend_gpu(monkeypatch, *capabilities)
    site.install("flash-attn-3", "3.0.0", "flash_attn_interface", SOURCE)
    probe = HOPPER.probe(device)
    assert probe.available == (not reason)
    assert reason in probe.reason
    assert gpu_generation(device) == (None if reason else 9)


def test_rocm_is_no_nvidia_gpu(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An MI300 has the capability 9.4, as torch says: by that alone it would be a Hopper."""
    pretend_gpu(monkeypatch, (9, 4))
    monkeypatch.setattr("torch.version.hip", "6.4.43482")
    site.install("flash-attn-3", "3.0.0", "flash_attn_interface", SOURCE)
    probe = HOPPER.probe()
    assert (probe.available, probe.broken, gpu_generation()) == (False, False, None)
    assert probe.reason == (
        f"For Hopper needs an NVIDIA GPU, torch {torch.__version__} is built for AMD GPUs (ROCm 6.4.43482)"
    )


@pytest.mark.parametrize(
    ("device", "remedy"), [("cuda:0", "pip install 3"), ("cuda:1", "pip install 2"), ("cuda:2", "pip install s")]
)
def test_the_remedy_is_for_the_gpu_that_is_named(
    site: Site, monkeypatch: pytest.MonkeyPatch, device: str, remedy: str
) -> None:
    pretend_gpu(monkeypatch, (9, 0), (8, 0), (12, 0))
    kernel, probe = first_that_runs((BLACKWELL, HOPPER, AMPERE), device)
    assert (kernel, probe.available, probe.remedy) == (BLACKWELL, False, f"Install it: {remedy}")


def test_a_loaded_kernel_is_the_function_with_its_own_signature(site: Site) -> None:
    site.install("flash-attn-3", "3.0.0", "flash_attn_interface", SOURCE)
    function, query = HOPPER.load(), torch.ones(1)
    assert function(query, None, scale=1) is query
    assert str(inspect.signature(function)) == "(q, k, scale=None)"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("offset", range(9))
def test_tensors_that_begin_between_multiples_of_16_bytes_are_copied(dtype: torch.dtype, offset: int) -> None:
    shape = (1, 3, 2, 8)
    tensor = torch.arange(64).to(dtype)[offset : offset + 48].view(shape)
    plain = with_plain_strides(tensor)
    assert plain.data_ptr() % 16 == 0
    assert plain.is_contiguous()
    assert torch.equal(plain, tensor)
    per_16_bytes = {torch.float16: 8, torch.bfloat16: 8, torch.float32: 4}[dtype]
    assert (plain is tensor) == (offset % per_16_bytes == 0)


@pytest.mark.parametrize(
    ("shape", "strides", "kept"),
    [
        ((2, 3, 2, 8), (48, 16, 8, 1), True),
        ((2, 3, 2, 8), (144, 48, 8, 1), True),
        ((2, 3, 2, 8), (48, 8, 24, 1), True),
        ((2, 3, 2, 8), (100, 16, 8, 1), False),
        ((1, 3, 2, 8), (100, 16, 8, 1), True),
        ((2, 3, 2, 8), (48, 20, 8, 1), False),
        ((2, 3, 2, 8), (96, 32, 16, 2), False),
        ((2, 3, 2, 8), (0, 16, 8, 1), False),
    ],
)
def test_strides_that_kernels_take(shape: tuple[int, ...], strides: tuple[int, ...], kept: bool) -> None:
    """In bfloat16, of which 8 are 16 bytes; an axis of one element has no stride that matters."""
    tensor = torch.arange(400).to(torch.bfloat16).as_strided(shape, strides)
    plain = with_plain_strides(tensor)
    assert (plain is tensor) == kept
    assert torch.equal(plain, tensor)
