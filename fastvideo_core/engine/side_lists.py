"""Stand in for the lists of what a model adds between its blocks: blocks that make hints, and adapters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch

from fastvideo_core.engine.between import Hints, adapted
from fastvideo_core.engine.block_stack import AttachedBlocks, Stack
from fastvideo_core.engine.forward_pass import BarePass, ForwardPass, current_pass


def install(transformer: torch.nn.Module, stack: Stack, undo: ExitStack) -> None:
    """Have the pass under way steer what the model adds between its blocks, if it does, until `undo` is closed."""
    hints, adapters = stack.described.hints, stack.described.adapters
    for name, kind in ((hints and hints.list, AttachedHints), (adapters, AttachedAdapters)):
        if name:
            modules = transformer.get_submodule(name)
            assert isinstance(modules, torch.nn.ModuleList)
            undo.callback(transformer._modules.__setitem__, name, modules)
            transformer._modules[name] = kind(modules, name, stack.size, stack)


class AttachedHints(AttachedBlocks):
    """Blocks that make hints; where a policy or a token order steers the pass, they run when a hint is added."""

    def _of_pass(self, current: ForwardPass | BarePass) -> Iterator[Any]:
        if isinstance(current, BarePass) or (current.gate is None and current.arrangement is None):
            return self._around(current)
        return self._put_off(current)

    def _put_off(self, current: ForwardPass) -> Iterator[Any]:
        described = self._stack.described.hints
        assert described is not None
        hints = Hints(described, self._first, current)
        for block in self._modules.values():
            assert block is not None
            yield hints.later(block)


class AttachedAdapters(AttachedBlocks):
    """Adapters, which a model takes from their list by number."""

    def __getitem__(self, index: Any) -> Any:
        current = current_pass() if self._stack.steered else None
        if not isinstance(current, ForwardPass) or isinstance(index, slice):
            return super().__getitem__(index)
        # Behind the last block of all the model may ask for one more adapter than there is.
        return adapted(lambda: super(AttachedAdapters, self).__getitem__(index), current)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())
