"""SAGE_ATTN: SageAttention 1, 2 or 3 (Zhang et al. 2024, 2025), attention in 8 or 4 bits: fast, and not exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fastvideo_core import (
    AttentionBackend,
    AttentionCall,
    AttentionFunction,
    Capabilities,
    Probe,
    Role,
    hookimpl,
    setting,
)
from fastvideo_core.kernels import HubKernel, Kernel, first_that_runs, gpu_generation, with_plain_strides

if TYPE_CHECKING:
    import torch

api_version = 2

SOURCE = "python setup.py install, in a clone of https://github.com/thu-ml/SageAttention"

SAGE_1 = Kernel(
    "SageAttention 1",
    distributions=("sageattention",),
    modules=("sageattention",),
    function="sageattn",
    generations=frozenset({8, 9, 10, 12}),
    install="pip install sageattention==1.0.6",
    versions="1.",
)
SAGE_2 = Kernel(
    "SageAttention 2",
    distributions=("sageattention",),
    modules=("sageattention",),
    function="sageattn",
    generations=frozenset({8, 9, 12}),
    install=SOURCE,
    rebuild=SOURCE,
    versions="2.",
)
SAGE_3 = Kernel(
    "SageAttention 3",
    distributions=("sageattn3",),
    modules=("sageattn3",),
    function="sageattn3_blackwell",
    generations=frozenset({10, 12}),
    install=f"{SOURCE}, folder sageattention3_blackwell",
    rebuild=f"{SOURCE}, folder sageattention3_blackwell",
)

HUB_2 = HubKernel(SAGE_2.title, "SageAttention/sage-attention", 3, "sageattn", SAGE_2.generations)
HUB_3 = HubKernel(SAGE_3.title, "SageAttention/sage-blackwell", 1, "sageattn3_blackwell", SAGE_3.generations)
"""The same of the hub, in the versions that diffusers 0.42 takes: for where none is installed."""

_KEYS_IN_A_BLOCK = 64
_MANY_KEYS = 8192
"""Of SageAttention 1; above that many keys its padding has less than 0.8 % of the weight."""

_MULTIPLES_OF_8 = set(range(8, 129, 8))
_HEAD_DIMS: dict[Kernel | HubKernel, set[int]] = {
    SAGE_1: {64, 96, 128},
    SAGE_2: _MULTIPLES_OF_8,
    SAGE_3: {64, 128},
    HUB_2: _MULTIPLES_OF_8,
    HUB_3: {64, 128},
}


def preference(generation: int | None) -> tuple[Kernel | HubKernel, ...]:
    """The versions to try on a generation of GPUs, best first; installed ones before the hub's."""
    blackwell = (generation or 0) >= 10
    installed = (SAGE_3, SAGE_2, SAGE_1) if blackwell else (SAGE_2, SAGE_1)
    if not HubKernel.can_be_asked():
        return installed
    return (*installed, HUB_3, HUB_2) if blackwell else (*installed, HUB_2)


@dataclass(frozen=True)
class SageSettings:
    """What can be set on SAGE_ATTN."""

    cross: bool = setting(False, "whether to serve cross attention too, where it gains little")


class SageAttention(AttentionBackend):
    """Self attention and joint attention; cross attention only if it is asked for."""

    name = "SAGE_ATTN"
    settings_type = SageSettings
    variable_prefix = "FASTVIDEO_SAGE"
    overflows_in = frozenset({"float16", "bfloat16"})

    def __init__(self) -> None:
        self._found: dict[str, tuple[Kernel | HubKernel, Probe]] = {}

    @property
    def capabilities(self) -> Capabilities:
        kernel = self._chosen[0]
        roles = {Role.SELF, Role.JOINT} | ({Role.CROSS} if self.settings.cross else set())
        return Capabilities(
            roles=frozenset(roles),
            lossless=False,
            # 1.0.6 has 1.3e-2 against torch's attention on an H100; the claim for 3, which has 4 bits, is a guess.
            tolerance=0.25 if kernel in (SAGE_3, HUB_3) else 0.05,
            head_dims=frozenset(_HEAD_DIMS[kernel]),
            dtypes=frozenset({"float16", "bfloat16"}),
            devices=frozenset({"cuda"}),
        )

    def probe(self) -> Probe:
        return self._chosen[1]

    def load(self) -> AttentionFunction:
        kernel = self._chosen[0]
        return _CALLS[kernel](kernel.load())

    @property
    def _chosen(self) -> tuple[Kernel | HubKernel, Probe]:
        """The newest version that can be used on the device, and its probe; looked for once."""
        if self.device not in self._found:
            self._found[self.device] = first_that_runs(preference(gpu_generation(self.device)), self.device)
        return self._found[self.device]


def _without_padding(sageattn: Callable[..., torch.Tensor]) -> AttentionFunction:
    """Version 1 (1.0.6), which subtracts the keys' mean from the caller's own keys, and in its last block of keys gives
    the places beyond the end the weight of a score of 0.

    So the mean is subtracted here; and attention to ones is the share of the weight that the real keys have got. That
    share is 1 up to 63 / keys: where there are many keys it is not worth a second call.
    """

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        query, key, value = map(with_plain_strides, (query, key, value))
        centred = key - key.mean(dim=1, keepdim=True)
        call_kernel = partial(
            sageattn, query, centred, tensor_layout="NHD", is_causal=False, sm_scale=call.scale, smooth_k=False
        )
        result: torch.Tensor = call_kernel(value)
        if key.shape[1] % _KEYS_IN_A_BLOCK == 0 or key.shape[1] >= _MANY_KEYS:
            return result
        return result / call_kernel(value.new_ones(value.shape))

    return attend


def _tokens_first(sageattn: Callable[..., torch.Tensor]) -> AttentionFunction:
    """Version 2. It swallows keywords that it does not know: the scale is `sm_scale`, and there is no mask."""

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        query, key, value = map(with_plain_strides, (query, key, value))
        return sageattn(query, key, value, tensor_layout="NHD", is_causal=False, sm_scale=call.scale)

    return attend


def _heads_first(sageattn3_blackwell: Callable[..., torch.Tensor]) -> AttentionFunction:
    """Version 3 takes (batch, heads, tokens, head_dim) and no scale, so another one is multiplied into the query.

    It subtracts the keys' mean from the caller's own keys, so it gets a copy, also where no axes need to be swapped.
    """

    import torch

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        if call.scale is not None:
            query = query * (call.scale * query.shape[-1] ** 0.5)
        query, value = (x.transpose(1, 2).contiguous() for x in (query, value))
        own_keys = key.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        return sageattn3_blackwell(query, own_keys, value).transpose(1, 2)

    return attend


_CALLS: dict[Kernel | HubKernel, Callable[[Callable[..., torch.Tensor]], AttentionFunction]] = {
    SAGE_1: _without_padding,
    SAGE_2: _tokens_first,
    SAGE_3: _heads_first,
    HUB_2: _tokens_first,
    HUB_3: _heads_first,
}


@hookimpl
def fastvideo_attention_backends() -> list[AttentionBackend]:
    return [SageAttention()]
