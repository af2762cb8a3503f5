"""Small attention backends, and plugins that bring them, without installing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastvideo_core import AttentionBackend, AttentionCall, AttentionFunction, Capabilities, Probe, Role
from fastvideo_core.discovery.plugins import Plugin, Plugins, load_plugins

if TYPE_CHECKING:
    import torch


class Recorder(AttentionBackend):
    """Plain softmax attention that keeps what it was called with."""

    name = "RECORDER"
    capabilities = Capabilities(roles=frozenset(Role), lossless=True)

    def __init__(self, name: str = "RECORDER", rank: int = 0, probe: Probe | None = None, **capabilities: Any) -> None:
        self.name = name  # type: ignore[misc]  # tests make many of one class
        self.capabilities = Capabilities(**{"roles": frozenset(Role), "lossless": True, **capabilities})
        self.rank = rank
        self.answer = probe or Probe(True, kernel="recorder", version="1")
        self.seen: list[tuple[Any, ...]] = []
        self.masks: list[tuple[Any, ...]] = []

    def probe(self) -> Probe:
        return self.answer

    def load(self) -> AttentionFunction:
        def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            self.seen.append((call.role, call.branch, call.step, call.num_steps, call.layer, call.layout))
            self.masks.append((key.shape[1], call.key_lengths, call.mask))
            scale = query.shape[-1] ** -0.5 if call.scale is None else call.scale
            weights = (query.transpose(1, 2) * scale @ key.permute(0, 2, 3, 1)).softmax(-1)
            return (weights @ value.transpose(1, 2)).transpose(1, 2)

        return attend

    def automatic_priority(self, need: Any) -> int:
        return self.rank


def core_alone() -> Plugins:
    """What the core brings itself."""
    return Plugins(plugin for plugin in load_plugins().all if plugin.distribution == "fastvideo-core")


def plugins_with(*backends: AttentionBackend, **changes: Any) -> Plugins:
    """What the core brings, and a plugin with these backends."""
    return Plugins([*core_alone().all, Plugin("test", "acme", "1.0", backends=list(backends), **changes)])
