"""FLASH_ATTN: FlashAttention 2, 3 or 4 (Dao et al. 2022 to 2026), whichever is installed and best on this GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fastvideo_core import (
    AttentionBackend,
    AttentionCall,
    AttentionFunction,
    Capabilities,
    Need,
    Probe,
    Role,
    hookimpl,
    setting,
)
from fastvideo_core.kernels import HubKernel, Kernel, first_that_runs, gpu_generation, with_plain_strides

if TYPE_CHECKING:
    import torch

api_version = 2

KERNELS = {
    "2": Kernel(
        "FlashAttention 2",
        distributions=("flash-attn",),
        modules=("flash_attn",),
        function="flash_attn_func",
        generations=frozenset({8, 9, 10, 12}),
        install="pip install flash-attn --no-build-isolation",
        rebuild="pip install flash-attn --no-build-isolation --no-binary flash-attn --force-reinstall --no-deps",
    ),
    "3": Kernel(
        "FlashAttention 3",
        distributions=("flash-attn-3", "flashattn-hopper"),
        modules=("flash_attn_3.flash_attn_interface", "flash_attn_interface"),
        function="flash_attn_func",
        generations=frozenset({9}),
        install="python setup.py install, in the folder hopper of https://github.com/Dao-AILab/flash-attention",
        rebuild="python setup.py install, in the folder hopper of https://github.com/Dao-AILab/flash-attention",
    ),
    "4": Kernel(
        "FlashAttention 4",
        distributions=("flash-attn-4",),
        modules=("flash_attn.cute",),
        function="flash_attn_func",
        generations=frozenset({8, 9, 10, 11, 12}),
        install="pip install --pre flash-attn-4",
    ),
}
"""By major version. FlashAttention 2 and 4 share the package flash_attn, so metadata tells them apart."""


HUB = {
    version: HubKernel(KERNELS[version].title, repository, number, "flash_attn_func", KERNELS[version].generations)
    for version, repository, number in (
        ("2", "kernels-community/flash-attn2", 3),
        ("3", "kernels-community/flash-attn3", 1),
        ("4", "kernels-community/flash-attn4", 0),
    )
}
"""The same of the hub, in the versions that diffusers 0.42 takes: for where none is installed."""


def _version(value: Any) -> str:
    """A version that there is, from text or a number."""
    if str(value) not in KERNELS:
        raise ValueError("it must be 2, 3 or 4")
    return str(value)


def preference(generation: int | None) -> tuple[str, ...]:
    """The versions to try on a generation of GPUs, best first: 3 is for Hopper, 2 has no code for Blackwell alone."""
    if generation == 9:
        return ("3", "4", "2")
    return ("2", "4") if (generation or 0) < 9 else ("4", "2")


@dataclass(frozen=True)
class FlashSettings:
    """What can be set on FLASH_ATTN."""

    version: str | None = setting(
        None, "the version of FlashAttention; by default the best that is there for this GPU", parse=_version
    )


class FlashAttention(AttentionBackend):
    """Every role. Padding reaches it as shorter keys; any other mask is an error."""

    name = "FLASH_ATTN"
    settings_type = FlashSettings
    overflows_in = frozenset({"float16"})

    def __init__(self) -> None:
        self._found: dict[tuple[str, str | None], tuple[Kernel | HubKernel, Probe]] = {}

    @property
    def capabilities(self) -> Capabilities:
        narrow = self._chosen[0] in (KERNELS["4"], HUB["4"]) and gpu_generation(self.device) != 9
        return Capabilities(
            roles=frozenset(Role),
            lossless=True,
            head_dims=frozenset(range(8, 129 if narrow else 257, 8)),
            dtypes=frozenset({"float16", "bfloat16"}),
            devices=frozenset({"cuda"}),
            grouped_heads=True,
        )

    def probe(self) -> Probe:
        return self._chosen[1]

    def load(self) -> AttentionFunction:
        function = self._chosen[0].load()

        def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            query, key, value = map(with_plain_strides, (query, key, value))
            result: torch.Tensor | tuple[torch.Tensor, ...]
            result = function(query, key, value, softmax_scale=call.scale, causal=False)
            return result[0] if isinstance(result, tuple) else result

        return attend

    def automatic_priority(self, need: Need) -> int:
        """Above TORCH_SDPA, but not with version 2 on Hopper and newer, where the kernel that torch picks is faster."""
        return 0 if self._chosen[0] in (KERNELS["2"], HUB["2"]) and (gpu_generation(self.device) or 0) >= 9 else 10

    @property
    def _chosen(self) -> tuple[Kernel | HubKernel, Probe]:
        """The kernel for the device and the version that is set, and its probe; looked for once."""
        asked = (self.device, self.settings.version)
        if asked not in self._found:
            self._found[asked] = self._choose(*asked)
        return self._found[asked]

    def _choose(self, device: str, version: str | None) -> tuple[Kernel | HubKernel, Probe]:
        """The version that was asked for, else the best that can be used there; installed ones before the hub's."""
        versions = preference(gpu_generation(device)) if version is None else (version,)
        kernels: list[Kernel | HubKernel] = [KERNELS[one] for one in versions]
        if HubKernel.can_be_asked():
            kernels += [HUB[one] for one in versions]
        kernel, probe = first_that_runs(kernels, device)
        if probe.available or version is None:
            return kernel, probe
        origin = self.origin_of("version")
        reason, remedy = f"{probe.reason}; {origin} asks for it", f"{probe.remedy}, or unset {origin}"
        return kernel, replace(probe, reason=reason, remedy=remedy)


@hookimpl
def fastvideo_attention_backends() -> list[AttentionBackend]:
    return [FlashAttention()]
