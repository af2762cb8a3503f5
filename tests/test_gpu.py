"""What only a CUDA device can show."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fv_flash
import fv_sage
import numpy as np
import pytest
import torch
from fv_sta.backend import SlidingTileAttention
from fv_sta.kernels import KERNELS, fa4, fastvideo_kernel, st_attn

from fastvideo_core import AttentionCall, Role, TokenLayout, VideoGenerator, attach
from fastvideo_core.engine.attention.clock import KernelClock
from fastvideo_core.engine.attention.guard import FiniteGuard
from fastvideo_core.errors import AttachError, BackendOutputError, BackendUnavailableError
from fastvideo_core.kernels import Kernel
from tests.support import kernels as stand_ins
from tests.support.models import SIZE, build_wan_pipeline, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]

SHORT: dict[str, Any] = {**SIZE, "guidance_scale": 3.0, "seed": 7, "save_video": False}


def test_torch_sdpa_gives_the_bare_pipeline_s_frames() -> None:
    pipe = build_wan_pipeline().to("cuda")
    bare = run(pipe)
    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        np.testing.assert_allclose(run(pipe), bare, atol=1e-5)
        assert fv.receipt.device.startswith("cuda")
        assert fv.receipt.peak_memory_bytes


def test_a_pipeline_that_was_moved_is_refused() -> None:
    pipe = build_wan_pipeline()
    with attach(pipe):
        pipe.to("cuda")
        with pytest.raises(AttachError, match="was float32 on cpu when it was attached, and is float32 on cuda:0 now"):
            run(pipe)


def test_bfloat16_is_the_default(wan_folder: Path) -> None:
    with VideoGenerator.from_pretrained(wan_folder) as generator:
        receipt = generator.generate_video("cat", **SHORT).receipt
    assert (receipt.device.split(":")[0], receipt.dtype) == ("cuda", "bfloat16")


@pytest.mark.parametrize("pin_cpu_memory", [False, True])
def test_offloading_changes_where_weights_lie_and_nothing_else(wan_folder: Path, pin_cpu_memory: bool) -> None:
    with VideoGenerator.from_pretrained(wan_folder, dtype="float32") as generator:
        expected = generator.generate_video("cat", **SHORT).frames
    with VideoGenerator.from_pretrained(
        wan_folder,
        dtype="float32",
        dit_cpu_offload=True,
        vae_cpu_offload=True,
        text_encoder_cpu_offload=True,
        pin_cpu_memory=pin_cpu_memory,
    ) as generator:
        result = generator.generate_video("cat", **SHORT)
    np.testing.assert_allclose(result.frames, expected, atol=1e-5)
    assert result.receipt.device.startswith("cuda")


@pytest.mark.parametrize("backend", ["TORCH_SDPA", "FLASH_ATTN"])
def test_closing_gives_back_all_memory(backend: str, wan_folder: Path) -> None:
    """What libraries keep for good is there after the first generation: the second one is measured."""
    allocated: list[int] = []
    for _ in range(3):
        try:
            generator = VideoGenerator.from_pretrained(wan_folder, attention_backend=backend)
        except BackendUnavailableError as error:
            pytest.skip(str(error))
        generator.generate_video("cat", **SHORT)
        assert torch.cuda.memory_allocated() > max(allocated, default=0)
        generator.close()
        allocated.append(torch.cuda.memory_allocated())
    assert allocated[0] == allocated[1] == allocated[2]


def test_the_guard_never_waits_for_the_gpu() -> None:
    guard = FiniteGuard("TEST", ["float32"], "TEST_GUARD")
    good, bad = torch.zeros(1, 4, 2, 8, device="cuda"), torch.full((1, 4, 2, 8), float("nan"), device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(20):
            guard.next_pass()
            for layer in range(3):
                guard.see(good, AttentionCall(Role.SELF, layer=layer, step=step, branch="cond"))
        guard.next_pass()
        guard.see(bad, AttentionCall(Role.SELF, layer=0, step=20, branch="cond"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with pytest.raises(BackendOutputError, match="layer 0 of SELF attention, step 20"):
        guard.finish()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when it compiles
def test_compiled_frames_are_the_eager_ones(wan_folder: Path) -> None:
    with VideoGenerator.from_pretrained(wan_folder, dtype="float32") as generator:
        expected = generator.generate_video("cat", **SHORT).frames
    with VideoGenerator.from_pretrained(wan_folder, dtype="float32", compile=True) as generator:
        np.testing.assert_allclose(generator.generate_video("cat", **SHORT).frames, expected, atol=1e-3)


def test_a_planned_policy_never_waits_for_the_gpu() -> None:
    from fv_teacache.policy import TeaCache

    pipe = build_wan_pipeline().to("cuda")
    pipe.scheduler.set_timesteps(12, device="cuda")
    latents, text = torch.randn(1, 16, 3, 4, 6, device="cuda"), torch.randn(1, 7, 16, device="cuda")
    with attach(pipe, cache=TeaCache(0.5, coefficients=(0.2, 0.0))) as fv:
        with pipe.progress_bar(total=12) as bar, torch.no_grad():
            for number, timestep in enumerate(pipe.scheduler.timesteps):
                if number == 1:
                    torch.cuda.set_sync_debug_mode("error")
                with pipe.transformer.cache_context("cond"):
                    pipe.transformer(latents, timestep.expand(1), text, return_dict=False)
                bar.update()
            torch.cuda.set_sync_debug_mode("default")
        assert fv.receipt.steps_skipped["cond"] > 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when it compiles
def test_skipped_steps_are_the_same_compiled(wan_folder: Path) -> None:
    options = {**SHORT, "num_inference_steps": 8, "cache": "TAYLORSEER@3"}
    with VideoGenerator.from_pretrained(wan_folder, dtype="float32") as generator:
        expected = generator.generate_video("cat", **options)
    with VideoGenerator.from_pretrained(wan_folder, dtype="float32", compile=True) as generator:
        result = generator.generate_video("cat", **options)
    np.testing.assert_allclose(result.frames, expected.frames, atol=2e-3)  # half of a step of 8 bits
    assert result.receipt.steps_skipped == expected.receipt.steps_skipped
    assert sum(result.receipt.steps_skipped.values()) > 0


@pytest.fixture(params=["cuda:0", "cuda:1"])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Each of two GPUs, while the first is the current one."""
    device = torch.device(request.param)
    if device.index >= torch.cuda.device_count():
        pytest.skip("there is only one GPU")
    yield device
    assert torch.cuda.current_device() == 0


def slowly(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
    """The values, after some milliseconds of the tensors' own GPU."""
    with torch.cuda.device(query.device):
        torch.cuda._sleep(20_000_000)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return value.clone()


def test_the_clock_counts_what_the_tensors_own_gpu_takes(device: torch.device) -> None:
    clock, tensor = KernelClock(), torch.zeros(1, 4, 2, 8, device=device)
    attend, stream = clock.around(slowly), torch.cuda.current_stream(device)
    begin = stream.record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
    for _ in range(3):
        attend(tensor, tensor, tensor, AttentionCall(Role.SELF))
    end = stream.record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
    seconds = clock.seconds()
    end.synchronize()
    assert 0.5 < seconds * 1e3 / begin.elapsed_time(end) <= 1.001


def test_a_clock_counts_calls_on_all_gpus() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is only one GPU")
    both, one = KernelClock(), KernelClock()
    for name in ("cuda:0", "cuda:1"):
        tensor = torch.zeros(1, 4, 2, 8, device=name)
        both.around(slowly)(tensor, tensor, tensor, AttentionCall(Role.SELF))
    one.around(slowly)(tensor, tensor, tensor, AttentionCall(Role.SELF))
    assert both.seconds() > 1.5 * one.seconds()


def guarded(device: torch.device, dtype: torch.dtype, number: float) -> FiniteGuard:
    """A guard that has seen an output with this number among the largest finite ones, in step 0."""
    output = torch.full((1, 64, 4, 64), torch.finfo(dtype).max, dtype=dtype, device=device)
    output[0, 41, 3, 7] = number
    guard = FiniteGuard("TEST", ["float16", "bfloat16", "float32"], "TEST_GUARD")
    call = AttentionCall(Role.SELF, layer=1, step=0, branch="cond")
    guard.see(slowly(output, output, output, call), call)
    return guard


NUMBERS = pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
DTYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])


@NUMBERS
@DTYPES
def test_the_guard_waits_for_the_copy_from_the_tensors_own_gpu(
    device: torch.device, dtype: torch.dtype, number: float
) -> None:
    guard = guarded(device, dtype, number)
    with pytest.raises(BackendOutputError, match="layer 1 of SELF attention, step 0"):
        guard.finish()


@DTYPES
def test_the_guard_takes_the_largest_finite_numbers(device: torch.device, dtype: torch.dtype) -> None:
    guard = guarded(device, dtype, -torch.finfo(dtype).max)
    guard.finish()


def test_the_guard_notices_in_a_later_pass(device: torch.device) -> None:
    guard = guarded(device, torch.bfloat16, math.nan)
    fine = torch.zeros(1, 64, 4, 64, device=device)

    def two_more_passes() -> None:
        for step in (1, 2):
            guard.next_pass()
            guard.see(fine, AttentionCall(Role.SELF, layer=0, step=step, branch="cond"))
            torch.cuda.synchronize(device)  # what is on its way has landed

    with pytest.raises(BackendOutputError, match="layer 1 of SELF attention, step 0"):
        two_more_passes()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when it compiles
@pytest.mark.parametrize("name", KERNELS)
def test_a_sparse_backend_names_what_computed_each_call(device: torch.device, name: str) -> None:
    probe = KERNELS[name].probe(str(device))
    if not probe.available:
        pytest.skip(probe.reason)
    grid, tile = ((18, 48, 80), (6, 8, 8)) if name == "st_attn" else ((4, 16, 16), (2, 8, 8))
    backend = SlidingTileAttention()
    backend.device = str(device)
    backend.take_settings({"tile": tile, "window": (3, 3, 3) if name == "st_attn" else (1, 1, 1), "kernel": name})
    dense = fa4.KERNEL.probe(str(device))
    expected = dense.kernel if dense.available else "torch.nn.functional.scaled_dot_product_attention"
    tensor = torch.randn(1, math.prod(grid), 1, 128, dtype=torch.bfloat16, device=device)
    for step, kernel in ((0, expected), (3, probe.kernel)):
        call = AttentionCall(Role.SELF, 0, step, 4, "", TokenLayout(grid))
        assert backend.load()(tensor, tensor, tensor, call).isfinite().all()
        assert call.served is not None
        assert call.served.kernel == kernel


@pytest.mark.parametrize(
    ("kernel", "source"),
    [
        (fv_flash.KERNELS["2"], stand_ins.FLASH_2),
        (fv_flash.KERNELS["3"], stand_ins.FLASH_3),
        (fv_flash.KERNELS["4"], stand_ins.FLASH_4),
        (fa4.KERNEL, stand_ins.FLASH_4_SPARSE),
        (fv_sage.SAGE_1, stand_ins.SAGE_1),
        (fv_sage.SAGE_2, stand_ins.SAGE),
        (fv_sage.SAGE_3, stand_ins.SAGE_3),
        (st_attn.KERNEL, stand_ins.ST_ATTN),
        (fastvideo_kernel.KERNEL, stand_ins.FASTVIDEO_KERNEL),
    ],
    ids=lambda value: value.title if isinstance(value, Kernel) else "",
)
def test_a_stand_in_has_the_parameters_of_the_real_kernel(kernel: Kernel, source: str) -> None:
    """By name, kind, default and order; the real one may have more."""
    probe = kernel.probe()
    if not probe.available:
        pytest.skip(probe.reason)
    theirs = inspect.signature(kernel.load()).parameters
    ours = parameters_of(source, kernel.function)
    assert [name for name in theirs if name in ours] == list(ours)
    for name, parameter in ours.items():
        assert (theirs[name].kind, theirs[name].default) == (parameter.kind, parameter.default), name


def test_the_stand_in_for_block_lists_has_the_fields_of_the_real_ones() -> None:
    probe = fa4.KERNEL.probe()
    if not probe.available:
        pytest.skip(probe.reason)
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch

    ours = parameters_of(stand_ins.BLOCK_SPARSITY, "BlockSparseTensorsTorch")
    theirs = inspect.signature(BlockSparseTensorsTorch).parameters
    assert [name for name in theirs if name in ours] == list(ours)


def parameters_of(source: str, function: str) -> dict[str, inspect.Parameter]:
    """The parameters of what a stand-in's source defines."""
    defined: dict[str, Any] = {}
    exec(source, defined)
    return dict(inspect.signature(defined[function]).parameters)
