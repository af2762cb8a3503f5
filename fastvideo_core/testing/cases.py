"""The inputs that a backend is tried on, over the grid of what it declares, and what attention of them is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch

from fastvideo_core.contract.attention import Capabilities, MaskKind, Role, TokenLayout

GRID = (3, 5, 7)
VIDEO_TOKENS = 105
TEXT_TOKENS = 29

Memory = Literal["dense", "heads first", "fused", "last strided", "broadcast"]
"""How the tensors lie in memory; as (batch, tokens, heads, head_dim) they look the same."""

ROUNDING = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.2e-2}
"""The relative error that a lossless backend may have: some roundings of its dtype."""


@dataclass(frozen=True)
class Case:
    """One call of attention. `text_lengths` has an entry for each of the batch, where padding is masked."""

    role: Role
    head_dim: int
    dtype: str
    batch: int = 1
    heads: int = 3
    key_heads: int = 3
    grid: tuple[int, int, int] = GRID
    memory: Memory = "dense"
    scale: float | None = None
    mask: MaskKind = MaskKind.NONE
    text_lengths: tuple[int, ...] | None = None

    def __str__(self) -> str:
        parts = [self.role.value, f"d{self.head_dim}", self.dtype, f"b{self.batch}", f"{self.queries}x{self.keys}"]
        parts += [self.memory.replace(" ", "_")] if self.memory != "dense" else []
        parts += [f"h{self.heads}:{self.key_heads}"] if self.heads != self.key_heads else []
        parts += [f"scale{self.scale}"] if self.scale else []
        parts += [self.mask.value] if self.mask is not MaskKind.NONE else []
        parts += ["real" + "_".join(map(str, self.text_lengths))] if self.text_lengths else []
        return "-".join(parts)

    @property
    def layout(self) -> TokenLayout:
        """How the tokens are arranged."""
        text = TEXT_TOKENS if self.role is Role.JOINT else 0
        return TokenLayout(self.grid, text_after=text, text_lengths=self.text_lengths if text else None)

    @property
    def queries(self) -> int:
        time, height, width = self.grid
        return time * height * width + self.layout.text_after

    @property
    def keys(self) -> int:
        return self.queries if self.role.among_video else TEXT_TOKENS


def cases_for(capabilities: Capabilities) -> list[Case]:
    """Every role, head size and dtype that is declared, and each variation of the call at the first head size."""
    return list(dict.fromkeys(_cases(capabilities)))


def _cases(capabilities: Capabilities) -> Iterator[Case]:
    dtypes = sorted(capabilities.dtypes or ROUNDING)
    for role in tried_roles(capabilities):
        for dtype in dtypes:
            for head_dim in head_dims(capabilities):
                yield Case(role, head_dim, dtype)
            plain = Case(role, typical_head_dim(capabilities), dtype)
            yield from _variations(plain, capabilities)


def _variations(plain: Case, capabilities: Capabilities) -> Iterator[Case]:
    for batch in (2, 3):
        yield replace(plain, batch=batch)
    for grid in ((1, 1, 1), (1, 1, 3), (2, 8, 8), (5, 9, 13)):
        yield replace(plain, grid=grid)
    for memory in ("heads first", "fused", "last strided", "broadcast"):
        yield replace(plain, batch=2, memory=memory)
    for scale in (0.3, 1.0):
        yield replace(plain, scale=scale)
    if capabilities.grouped_heads:
        yield replace(plain, heads=4, key_heads=2)
        yield replace(plain, heads=4, key_heads=1)
    if plain.role is not Role.SELF:
        yield replace(plain, text_lengths=(TEXT_TOKENS - 4,), mask=MaskKind.KEY_LENGTH)
        yield replace(plain, batch=2, text_lengths=(TEXT_TOKENS - 4, 7), mask=MaskKind.KEY_LENGTH)
    if MaskKind.ARBITRARY in capabilities.masks:
        yield replace(plain, batch=2, mask=MaskKind.ARBITRARY)


def tried_roles(capabilities: Capabilities) -> list[Role]:
    """The roles that are declared; AUDIO only where CROSS is not, as their calls are alike."""
    return sorted(role for role in capabilities.roles if role is not Role.AUDIO or Role.CROSS not in capabilities.roles)


def head_dims(capabilities: Capabilities) -> list[int]:
    """Of the declared head sizes the least, the greatest and some between, powers of two preferred."""
    if capabilities.head_dims is None:
        return [8, 40, 64, 128]
    declared = sorted(capabilities.head_dims)
    between = [size for size in (40, 64, 96, 128, 192) if size in capabilities.head_dims]
    return sorted({declared[0], *between, declared[-1]})


def typical_head_dim(capabilities: Capabilities) -> int:
    """64 where that is declared."""
    sizes = head_dims(capabilities)
    return 64 if 64 in sizes else sizes[0]


@dataclass(frozen=True)
class Inputs:
    """The tensors of a case: (batch, tokens, heads, head_dim), and the mask as diffusers would pass it."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None


def make_inputs(case: Case, device: str) -> Inputs:
    """Normally distributed tensors, always the same for a case."""
    generator = torch.Generator().manual_seed(20)
    query, key, value = (
        _in_memory(torch.randn(case.batch, tokens, heads, case.head_dim, generator=generator), case, device)
        for tokens, heads in ((case.queries, case.heads), (case.keys, case.key_heads), (case.keys, case.key_heads))
    )
    return Inputs(query, key, value, _mask(case, generator, device))


def _in_memory(tensor: torch.Tensor, case: Case, device: str) -> torch.Tensor:
    tensor = tensor.to(device, getattr(torch, case.dtype))
    if case.memory == "heads first":
        return tensor.transpose(1, 2).contiguous().transpose(1, 2)
    if case.memory == "fused":
        return torch.stack((tensor, tensor, tensor), dim=2)[:, :, 1]
    if case.memory == "last strided":
        return torch.stack((tensor, tensor), dim=-1)[..., 0]
    if case.memory == "broadcast":
        return tensor[:1].expand(case.batch, -1, -1, -1)
    return tensor


def _mask(case: Case, generator: torch.Generator, device: str) -> torch.Tensor | None:
    if case.mask is MaskKind.ARBITRARY:
        seen = torch.rand(case.batch, 1, case.queries, case.keys, generator=generator) < 0.6
        seen[..., 0] = True
        return seen.to(device)
    if case.text_lengths is None:
        return None
    lengths = torch.tensor(case.text_lengths)[:, None] + (case.keys - TEXT_TOKENS)
    return (torch.arange(case.keys) < lengths)[:, None, None].to(device)


def some_queries(inputs: Inputs, visible: torch.Tensor | None, every: int) -> tuple[Inputs, torch.Tensor | None]:
    """Some of the queries with all keys, and what these see, where all of them are too much to compute exactly."""
    query = inputs.query[:, ::every]
    if visible is not None and visible.ndim >= 2 and visible.shape[-2] > 1:
        visible = visible[..., ::every, :]
    return replace(inputs, query=query), visible


def exact_attention(inputs: Inputs, scale: float | None, visible: torch.Tensor | None = None) -> torch.Tensor:
    """softmax(scale q kᵀ) v in float64, written out: (batch, tokens, heads, head_dim).

    Args:
        visible: what the inputs' mask is combined with; broadcasts to (batch, heads, queries, keys).
    """
    query, key, value = (x.double().transpose(1, 2) for x in (inputs.query, inputs.key, inputs.value))
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if inputs.mask is not None:
        scores = scores.masked_fill(~inputs.mask, float("-inf"))
    if visible is not None:
        scores = scores.masked_fill(~visible.to(scores.device), float("-inf"))
    return (scores.softmax(dim=-1) @ value).transpose(1, 2)


def relative_error(result: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest relative error, in the Euclidean norm, of any head of any batch entry; infinite if not finite."""
    difference = (result.double() - exact).transpose(1, 2).flatten(2).norm(dim=-1)
    worst = (difference / exact.transpose(1, 2).flatten(2).norm(dim=-1)).max().item()
    return worst if worst == worst else float("inf")
