"""What was found when a pipeline was attached, and whether it is still so when a run starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch

from fastvideo_core.contract.attention import Need, Role
from fastvideo_core.contract.caching import CachedModel
from fastvideo_core.contract.model import AttentionSite, ModelFamily
from fastvideo_core.discovery.plugins import Plugins
from fastvideo_core.engine import diffusers_bridge
from fastvideo_core.engine.block_stack import AttachedBlocks
from fastvideo_core.engine.caching.choice import model_of
from fastvideo_core.engine.families import family_of_pipeline, transformers_of
from fastvideo_core.engine.layers import BlockCalls, calls_of_blocks, num_hints
from fastvideo_core.errors import AttachError, BackendNotUsedError


@dataclass(frozen=True, eq=False)
class AttachedModel:
    """A pipeline's model as it was attached.

    Attributes:
        transformers: two in Wan 2.2, one elsewhere; `parts` are their names in the pipeline.
        dtypes: the names of their dtypes.
        needs: what it asks of a backend, per role.
        blocks: the calls of attention of each block, per transformer.
        block_lists: the blocks themselves, per transformer.
        device: where it computes, with its index.
    """

    pipe: Any
    family: ModelFamily
    parts: tuple[str, ...]
    transformers: tuple[Any, ...]
    dtypes: tuple[str, ...]
    needs: tuple[Need, ...]
    blocks: tuple[tuple[BlockCalls, ...], ...]
    block_lists: tuple[tuple[Any, ...], ...]
    device: torch.device

    @classmethod
    def of(cls, pipe: Any, plugins: Plugins) -> AttachedModel:
        """Read a pipeline.

        Raises:
            UnsupportedModelError: one of its transformers is not supported.
            DuplicateProviderError: two plugins provide its family.
            AttachError: diffusers' own caching is enabled on it.
        """
        family = family_of_pipeline(plugins, pipe)
        found = dict(transformers_of(pipe, family))
        device = diffusers_bridge.execution_device(pipe)
        first = next(iter(found.values()))
        needs = family.needs(first.config, first.dtype, device)
        for transformer in found.values():
            _check_own_cache(transformer)
        return cls(
            pipe,
            family,
            tuple(found),
            tuple(found.values()),
            tuple(map(_dtype, found.values())),
            tuple(needs),
            tuple(calls_of_blocks(transformer, family) for transformer in found.values()),
            tuple(_blocks(transformer, family) for transformer in found.values()),
            device,
        )

    @property
    def cached_model(self) -> CachedModel:
        """What a caching policy is told of it."""
        kind = type(self.pipe).__name__
        model = model_of(self.family, str(self.pipe.name_or_path or kind), kind)
        blocks = (
            len(blocks) - num_hints(transformer, self.family)
            for blocks, transformer in zip(self.block_lists, self.transformers, strict=True)
        )
        return replace(model, num_blocks=min(blocks), num_experts=len(self.transformers))

    def sites(self, number: int) -> list[AttentionSite]:
        """The attention of the transformer of that number, as it is now."""
        return list(self.family.attentions(self.transformers[number]))

    def num_layers(self) -> Counter[Role]:
        """Layers of each role."""
        return Counter(site.role for site in self.sites(0))

    def check(self) -> None:
        """Refuse to run when something is no longer as it was attached.

        Raises:
            AttachError: a transformer, its dtype, its device, or its own caching has changed.
            BackendNotUsedError: a processor or a block has, so that attention would go around the backend.
        """
        for number, (part, transformer) in enumerate(zip(self.parts, self.transformers, strict=True)):
            now = getattr(self.pipe, part, None)
            if now is not transformer:
                raise BackendNotUsedError(
                    f"{part} of the {type(self.pipe).__name__} is another {type(now).__name__} than when it was "
                    "attached; detach, and attach again"
                )
            _check_own_cache(transformer)
            self._check_place(number)
            self._check_blocks(number)

    def _check_place(self, number: int) -> None:
        device, dtype = diffusers_bridge.execution_device(self.pipe), _dtype(self.transformers[number])
        was = self.dtypes[number]
        if (dtype, device) != (was, self.device):
            raise AttachError(
                f"{self.parts[number]} was {was} on {self.device} when it was attached, and is {dtype} on {device} "
                "now, for which no backend was chosen; detach, and attach again"
            )

    def _check_blocks(self, number: int) -> None:
        transformer = self.transformers[number]
        stack = self.family.stack
        lists = (*stack.attending_lists, *([stack.adapters] if stack.adapters else []))
        ours = all(isinstance(transformer.get_submodule(name), AttachedBlocks) for name in lists)
        if not ours or _blocks(transformer, self.family) != self.block_lists[number]:
            raise BackendNotUsedError(
                f"the blocks of {self.parts[number]} ({', '.join(lists)}) are not those that were attached; "
                "detach, and attach again"
            )
        if (module := diffusers_bridge.bypassed(self.sites(number))) is not None:
            name = next(name for name, one in transformer.named_modules() if one is module)
            raise BackendNotUsedError(
                f"{name} of {self.parts[number]} has another attention processor "
                f"({type(module.processor).__name__}) than the one that was attached, and would go around the backend; "
                "set processors and backends of diffusers first, and attach last"
            )


def _dtype(transformer: Any) -> str:
    return str(transformer.dtype).removeprefix("torch.")


def _check_own_cache(transformer: Any) -> None:
    if getattr(transformer, "is_cache_enabled", False):
        raise AttachError(
            f"diffusers' own caching is enabled on this {type(transformer).__name__}, and would leave out blocks "
            "behind the back of the core: call its disable_cache(), and give a caching policy as cache="
        )


def _blocks(transformer: Any, family: ModelFamily) -> tuple[Any, ...]:
    lists = (transformer.get_submodule(name) for name in family.stack.attending_lists)
    return tuple(block for blocks in lists for block in blocks._modules.values())
