"""What the core must know of a model family to put attention on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastvideo_core.attention.backend import Need, Role, TokenLayout

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Geometry:
    """How pixels and frames become tokens.

    Attributes:
        pixels_per_token: height and width of a token in pixels; a video's must be multiples of them.
        frames_per_token: frames beyond the first must be a multiple of this.
        max_tokens: the longest axis, in tokens, that the position embedding has.
    """

    pixels_per_token: tuple[int, int]
    frames_per_token: int
    max_tokens: int

    def grid(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Tokens along time, height and width."""
        frames = (num_frames - 1) // self.frames_per_token + 1
        return frames, height // self.pixels_per_token[0], width // self.pixels_per_token[1]


@dataclass(frozen=True)
class ModelFamily:
    """Models that share one transformer class of diffusers.

    Attributes:
        name: for messages.
        transformer: class name of the transformer; a pipeline may have several components of it.
        pipelines: class names of the pipelines that are known to work.
        attentions: yields (attention module, role) for each attention in the repeated blocks, in order.
        token_layout: from the transformer's configuration and the keyword arguments of its forward.
        geometry: from the configurations of transformer and autoencoder.
        roles: the roles that its attention has.
    """

    name: str
    transformer: str
    pipelines: frozenset[str]
    attentions: Callable[[torch.nn.Module], Iterator[tuple[torch.nn.Module, Role]]]
    token_layout: Callable[[Mapping[str, Any], Mapping[str, Any]], TokenLayout]
    geometry: Callable[[Mapping[str, Any], Mapping[str, Any]], Geometry]
    roles: tuple[Role, ...]

    def needs(self, head_dim: int, dtype: torch.dtype, device: torch.device) -> list[Need]:
        """What a model of the family asks of a backend, per role."""
        return [Need(role, head_dim, str(dtype).removeprefix("torch."), device.type) for role in self.roles]
