"""Which calls of attention each block of a transformer makes: what is counted is held against it."""

from __future__ import annotations

import inspect
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import torch

from fastvideo_core.contract.attention import Role
from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.errors import UnsupportedModelError


@dataclass(frozen=True)
class CallsOfRole:
    """The calls of one role in one block.

    Attributes:
        layers: for each call in the order of the calls, the layer that it belongs to.
        modules: likewise the name of its attention module.
        per_entry: whether each of them is made once for every entry of the batch.
        of_video: modules of AUDIO whose keys are the video tokens.
    """

    layers: tuple[int, ...]
    modules: tuple[str, ...]
    per_entry: bool = False
    of_video: frozenset[str] = frozenset()

    def expected(self, entries: int) -> int:
        """How many calls there are in a pass."""
        return len(self.layers) * (entries if self.per_entry else 1)

    def layer(self, number: int, entries: int) -> int:
        """The layer of the block's call of that number; of one too many, the last."""
        return self.layers[self._place(number, entries)]

    def has_video_keys(self, number: int, entries: int) -> bool:
        """Whether the keys of the block's call of that number are the video tokens, in a role where not all are."""
        return self.modules[self._place(number, entries)] in self.of_video

    def _place(self, number: int, entries: int) -> int:
        return min(number // (entries if self.per_entry else 1), len(self.layers) - 1)

    def without(self, idle: Container[str]) -> CallsOfRole:
        """Those that are left when the modules of these names make none."""
        kept = [number for number, module in enumerate(self.modules) if module not in idle]
        return replace(
            self,
            layers=tuple(self.layers[number] for number in kept),
            modules=tuple(self.modules[number] for number in kept),
        )


BlockCalls = Mapping[Role, CallsOfRole]


def calls_of_blocks(transformer: torch.nn.Module, family: ModelFamily) -> tuple[BlockCalls, ...]:
    """The calls of every block, list after list.

    Raises:
        UnsupportedModelError: an attention of the family lies outside of the blocks, or a block is there twice.
    """
    names = {id(module): name for name, module in transformer.named_modules()}
    lists = ", ".join(family.stack.attending_lists)
    blocks = [
        block
        for name in family.stack.attending_lists
        for block in transformer.get_submodule(name)._modules.values()
        if block is not None
    ]
    if len(set(map(id, blocks))) < len(blocks):
        raise UnsupportedModelError(
            f"{family.name}: a block stands in more than one place of {lists}, so its layers could not be told apart; "
            "give each place a block of its own"
        )
    block_of = {id(module): number for number, block in enumerate(blocks) for module in block.modules()}
    made: list[dict[Role, list[tuple[int, str, bool, bool]]]] = [{} for _ in blocks]
    layers = dict.fromkeys(Role, 0)
    for site in family.attentions(transformer):
        if id(site.module) not in block_of:
            raise UnsupportedModelError(
                f"{family.name}: the attention {names.get(id(site.module))} is in none of its lists of blocks, {lists}"
            )
        calls = made[block_of[id(site.module)]].setdefault(site.role, [])
        call = (layers[site.role], names[id(site.module)], site.calls is None, site.video_keys)
        calls += [call] * (site.calls or 1)
        layers[site.role] += 1
    return tuple({role: _of_role(calls) for role, calls in block.items()} for block in made)


def without(blocks: tuple[BlockCalls, ...], idle: Container[str]) -> tuple[BlockCalls, ...]:
    """The calls of every block but those of the attention modules of these names."""
    if not idle:
        return blocks
    return tuple(
        {role: left for role, calls in block.items() if (left := calls.without(idle)).modules} for block in blocks
    )


def first_attention(transformer: torch.nn.Module, family: ModelFamily) -> torch.nn.Module:
    """The attention of the first block that runs first in it; blocks that make hints come before."""
    blocks = transformer.get_submodule(family.stack.lists[0])._modules
    first = next(block for block in blocks.values() if block is not None)
    inner = set(first.modules())
    return next(site.module for site in family.attentions(transformer) if site.module in inner)


def num_hints(transformer: torch.nn.Module, family: ModelFamily) -> int:
    """How many of a transformer's blocks, the last ones as they are numbered, make hints for the others."""
    hints = family.stack.hints
    return len(transformer.get_submodule(hints.list)._modules) if hints else 0


def in_order_of_parameters(block: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of a call of a block by position."""
    if not kwargs:
        return args
    return inspect.signature(type(uncompiled(block)).forward).bind(block, *args, **kwargs).args[1:]


def uncompiled(block: Any) -> Any:
    """The module that `torch.compile` was given, if that is what made the block."""
    return getattr(block, "_orig_mod", block)


def _of_role(calls: list[tuple[int, str, bool, bool]]) -> CallsOfRole:
    layers, modules, per_entry, video_keys = zip(*calls, strict=True)
    return CallsOfRole(layers, modules, any(per_entry), frozenset(compress(modules, video_keys)))
