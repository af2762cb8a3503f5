"""TORCH_SDPA: torch's own scaled_dot_product_attention, through the same hooks as any plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastvideo_core.contract.attention import (
    AttentionBackend,
    AttentionCall,
    AttentionFunction,
    Capabilities,
    MaskKind,
    Need,
    Probe,
    Role,
)
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.discovery.metadata import installed_version

if TYPE_CHECKING:
    import torch

api_version = API_VERSION


class TorchSDPA(AttentionBackend):
    """Every role, head size, dtype, device and mask."""

    name = "TORCH_SDPA"
    capabilities = Capabilities(
        roles=frozenset(Role), lossless=True, masks=frozenset({MaskKind.NONE, MaskKind.ARBITRARY}), grouped_heads=True
    )

    def probe(self) -> Probe:
        kernel = "torch.nn.functional.scaled_dot_product_attention"
        return Probe(True, kernel=kernel, version=installed_version("torch"))

    def load(self) -> AttentionFunction:
        from torch.nn.functional import scaled_dot_product_attention

        def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            return scaled_dot_product_attention(
                query.transpose(1, 2),
                key.transpose(1, 2),
                value.transpose(1, 2),
                attn_mask=call.mask,
                scale=call.scale,
                enable_gqa=query.shape[2] != key.shape[2],
            ).transpose(1, 2)

        return attend

    def automatic_priority(self, need: Need) -> int:
        return 1


@hookimpl
def fastvideo_attention_backends() -> list[AttentionBackend]:
    return [TorchSDPA()]
