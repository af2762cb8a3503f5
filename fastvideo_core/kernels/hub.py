"""A kernel of the hub, built for the torch that is here, which the package `kernels` fetches and loads.

Nothing is fetched unless FASTVIDEO_HUB_KERNELS=1: what is in the cache, or in a folder that LOCAL_KERNELS names, is
used.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, reduce
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from fastvideo_core.contract.attention import Probe
from fastvideo_core.kernels.installed import device_problem, on_its_device

VARIABLE = "FASTVIDEO_HUB_KERNELS"


@dataclass(frozen=True)
class HubKernel:
    """A function of a repository of kernels, for NVIDIA GPUs.

    Attributes:
        title: for messages, such as "FlashAttention 3".
        repository: such as "kernels-community/flash-attn3".
        version: of the repository's interface, as its branches are called: 1 for v1.
        function: its name in the module, which may have dots.
        generations: the major compute capabilities of the GPUs that it runs on; empty: the package decides.
        revision: a commit, instead of the version's newest.
    """

    title: str
    repository: str
    version: int
    function: str
    generations: frozenset[int] = frozenset()
    revision: str = ""

    @staticmethod
    def can_be_asked() -> bool:
        """Whether the package `kernels` is installed."""
        return _installed() is not None

    @property
    def pinned(self) -> str:
        """What is asked for, such as "kernels-community/flash-attn3@v1"."""
        return f"{self.repository}@{self.revision or f'v{self.version}'}"

    def probe(self, device: str = "cuda") -> Probe:
        """Whether it can be used here: the GPU, the package `kernels`, then what is cached, or fetched. Never raises.

        Args:
            device: as for `Kernel.probe`.
        """
        if self.generations and (problem := device_problem(self.title, self.generations, device)):
            return problem
        if not self.can_be_asked():
            reason = f"{self.title} ({self.pinned}) comes from the hub, for which the package kernels is not installed"
            return Probe(False, reason=reason, remedy=f"Install it: pip install kernels, and set {VARIABLE}=1")
        try:
            self.load()
        except Exception as error:  # of the network, the repository, or whatever its module does
            return self._not_there(error)
        return Probe(True, kernel=f"{self.pinned}:{self.function}", version=self.revision or f"v{self.version}")

    def load(self) -> Callable[..., Any]:
        """The function, called on the GPU of its first argument, a tensor; raises what the package raises."""
        found: Any = self.module()
        return on_its_device(reduce(getattr, self.function.split("."), found))

    def module(self) -> ModuleType:
        """What the repository has for this torch, from the cache; fetched if the environment allows that."""
        return _module(self, may_fetch())

    def _not_there(self, error: Exception) -> Probe:
        cause = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        if may_fetch():
            reason = f"{self.title} could not be had from the hub ({self.pinned}): {cause}"
            return Probe(False, reason=reason, remedy="See what the hub has for this torch", broken=True)
        reason = (
            f"{self.title} would be fetched from the hub ({self.pinned}), which {VARIABLE}=1 allows; "
            f"the cache does not have it: {cause}"
        )
        return Probe(False, reason=reason, remedy=f"Set {VARIABLE}=1")


def may_fetch() -> bool:
    """Whether the environment allows kernels to be fetched, and run."""
    return os.environ.get(VARIABLE, "").strip() == "1"


def _installed() -> str | None:
    try:
        return version("kernels")
    except PackageNotFoundError:
        return None


@cache
def _module(kernel: HubKernel, fetched: bool) -> ModuleType:
    from kernels import get_kernel

    pin = {"revision": kernel.revision} if kernel.revision else {"version": kernel.version}
    trusts = "trust_remote_code" in inspect.signature(get_kernel).parameters
    trust: dict[str, Any] = {"trust_remote_code": [kernel.repository]} if trusts else {}
    with _online(fetched):
        module: ModuleType = get_kernel(kernel.repository, **pin, **trust)
    return module


@contextmanager
def _online(allowed: bool) -> Iterator[None]:
    """Where it is not allowed, the package looks into the cache alone, as its users' HF_HUB_OFFLINE=1 has it."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not allowed
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
