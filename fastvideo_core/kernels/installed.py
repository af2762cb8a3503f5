"""Find a CUDA kernel that another distribution brings, and say what is wrong when it cannot be used.

For plugins: what a kernel is, is data; the checks, their order and their messages are the same for all.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from fastvideo_core.contract.attention import Probe

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Kernel:
    """A function of an installed distribution, for NVIDIA GPUs.

    Attributes:
        title: for messages, such as "FlashAttention 2".
        distributions: names under which it is packaged, the usual one first.
        modules: where it may be imported from, tried in order.
        function: its name there.
        generations: the major compute capabilities of the GPUs that it runs on.
        install: the command that installs it.
        rebuild: the command that builds it for the torch that is installed; "" if it is not compiled against torch.
        versions: how the versions begin that count as this kernel, such as "1."; "" for any.
    """

    title: str
    distributions: tuple[str, ...]
    modules: tuple[str, ...]
    function: str
    generations: frozenset[int]
    install: str
    rebuild: str = ""
    versions: str = ""

    def installed(self) -> Distribution | None:
        """Its distribution, by metadata alone."""
        for name in self.distributions:
            try:
                found = distribution(name)
            except PackageNotFoundError:
                continue
            if found.version.startswith(self.versions):
                return found
        return None

    def probe(self, device: str = "cuda") -> Probe:
        """Whether it can be used here: the GPU, its metadata, then its import. Never raises.

        Args:
            device: a torch device, such as "cuda:1"; "cuda", or one that is no CUDA device, is the current CUDA device.
        """
        if problem := device_problem(self.title, self.generations, device):
            return problem
        found = self.installed()
        if found is None:
            wanted = " or ".join(self.distributions) + (f" {self.versions}x" if self.versions else "")
            return Probe(
                False, reason=f"{self.title} is not installed ({wanted})", remedy=f"Install it: {self.install}"
            )
        try:
            path, _ = self._import()
        except Exception as error:  # an extension may fail in any way
            return self._does_not_load(found, error)
        return Probe(True, kernel=path, version=found.version)

    def load(self) -> Callable[..., Any]:
        """The function, called on the GPU of its first argument, a tensor; raises ImportError if it cannot be had."""
        return on_its_device(self._import()[1])

    def _import(self) -> tuple[str, Callable[..., Any]]:
        errors: list[Exception] = []
        for module in self.modules:
            try:
                function = getattr(import_module(module), self.function)
            except (ImportError, AttributeError, OSError) as error:
                errors.append(error)
                continue
            if not callable(function):
                errors.append(ImportError(f"{module}.{self.function} is {function!r}"))
                continue
            return f"{module}.{self.function}", function
        # What a missing module says is of no interest if another one was there and did not load.
        telling = [error for error in errors if not isinstance(error, ModuleNotFoundError)]
        raise ImportError(str((telling or errors)[0])) from (telling or errors)[0]

    def _does_not_load(self, found: Distribution, error: Exception) -> Probe:
        import torch

        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        reason = f"{self.title} ({found.metadata['Name']} {found.version}) is installed but does not load: {cause}"
        if "undefined symbol" not in str(error):
            return Probe(False, reason=reason, remedy=f"Reinstall it: {self.install}", broken=True)
        reason += f". It was compiled for {_built_for(found)}, here is torch {torch.__version__}"
        remedy = f"Build it for this torch: {self.rebuild}" if self.rebuild else f"Reinstall it: {self.install}"
        return Probe(False, reason=reason, remedy=remedy, broken=True)


def device_problem(title: str, generations: frozenset[int], device: str) -> Probe | None:
    """Why a kernel for GPUs of these generations cannot run on a device, or None."""
    import torch

    if problem := _no_nvidia_gpu(device):
        reason = f"{title} needs an NVIDIA GPU, {problem}"
        return Probe(False, reason=reason, remedy="Use another backend, or a torch and a driver with CUDA")
    major, minor = torch.cuda.get_device_capability(_cuda_device(device))
    if major in generations:
        return None
    takes = ", ".join(f"{generation}.x" for generation in sorted(generations))
    name = torch.cuda.get_device_name(_cuda_device(device))
    reason = f"{title} runs on compute capability {takes}; {name} has {major}.{minor}"
    return Probe(False, reason=reason, remedy="Use another backend")


def _built_for(found: Distribution) -> str:
    """The torch that a wheel was compiled against, as far as its version says: 2.8.3+cu12torch2.7."""
    local = found.version.partition("+")[2]
    after = local.partition("torch")[2]
    number = after[: len(after) - len(after.lstrip("0123456789."))].strip(".")
    return f"torch {number}" if number else "another torch (its version does not say which)"


def on_its_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with its first argument's GPU as the current one, where Triton and CuTe launch kernels."""
    import torch

    @wraps(function)
    def call(tensor: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        with torch.cuda.device_of(tensor):  # type: ignore[no-untyped-call]  # torch leaves it untyped
            return function(tensor, *arguments, **options)

    return call


def _cuda_device(device: str) -> str:
    """The device itself if it is a CUDA device, else the current CUDA device."""
    return device if device.partition(":")[0] == "cuda" else "cuda"


def _no_nvidia_gpu(device: str) -> str | None:
    """Why there is no NVIDIA GPU that goes by this name, or None if there is one."""
    import torch

    if torch.version.hip:
        return f"torch {torch.__version__} is built for AMD GPUs (ROCm {torch.version.hip})"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees none"
    index = torch.device(_cuda_device(device)).index
    if index is not None and index >= torch.cuda.device_count():
        return f"torch {torch.__version__} sees {torch.cuda.device_count()} and no {device}"
    return None


def gpu_generation(device: str = "cuda") -> int | None:
    """The major compute capability of an NVIDIA GPU: 8 for Ampere and Ada, 9 for Hopper, from 10 on for Blackwell.

    None if there is none. `device` is as for `Kernel.probe`.
    """
    import torch

    return None if _no_nvidia_gpu(device) else torch.cuda.get_device_capability(_cuda_device(device))[0]


def cpp_compiler() -> str | None:
    """The C++ compiler that torch.compile would use for a CPU; None if there is none."""
    named = os.environ.get("CXX", "").split()[:1]
    usual = ["cl"] if sys.platform == "win32" else ["g++", "clang++"]
    return next(filter(None, map(shutil.which, named or usual)), None)


def with_plain_strides(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself if it begins at a multiple of 16 bytes, its last axis is dense and all others are strided by 16
    bytes or multiples; else a copy.

    What kernels that load with TMA or in vectors of 16 bytes ask of (batch, tokens, heads, head_dim) inputs.
    """
    import torch

    unit = 16 // tensor.element_size()
    strides = [stride for stride, size in zip(tensor.stride()[:-1], tensor.shape[:-1], strict=True) if size > 1]
    aligned = tensor.data_ptr() % 16 == 0
    if aligned and tensor.stride(-1) == 1 and all(stride > 0 and stride % unit == 0 for stride in strides):
        return tensor
    # `contiguous` would return a tensor that is dense and begins at the wrong place as it is.
    return tensor.clone(memory_format=torch.contiguous_format)


class Probed(Protocol):
    """What `first_that_runs` asks of a kernel."""

    @property
    def generations(self) -> frozenset[int]: ...

    def probe(self, device: str = "cuda") -> Probe: ...


Some = TypeVar("Some", bound=Probed)


def first_that_runs(kernels: Iterable[Some], device: str = "cuda") -> tuple[Some, Probe]:
    """The first kernel that can be used and its probe; if there is none, the first, and why none of them can.

    The remedy is that of an installed kernel that is broken, else of the first that can run on this GPU. `device` is as
    for `Kernel.probe`.
    """
    probes = [(kernel, kernel.probe(device)) for kernel in kernels]
    for kernel, probe in probes:
        if probe.available:
            return kernel, probe
    generation = gpu_generation(device)
    if generation is None:
        return probes[0]
    telling = [probe for _, probe in probes if probe.broken] or [
        probe for kernel, probe in probes if generation in kernel.generations
    ]
    remedy = telling[0] if telling else probes[0][1]
    reasons = dict.fromkeys(probe.reason for _, probe in probes)
    return probes[0][0], Probe(False, reason="; ".join(reasons), remedy=remedy.remedy, broken=remedy.broken)
