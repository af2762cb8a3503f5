"""What the core must know of a model family to put attention and a caching policy on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastvideo_core.contract.attention import Need, Role, TokenLayout
from fastvideo_core.contract.caching import Signal

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Geometry:
    """How pixels and frames become tokens.

    Attributes:
        pixels_per_token: height and width of a token in pixels; a video's must be multiples of them.
        frames_per_token: frames beyond the first must be a multiple of this.
        max_tokens: the longest axis, in tokens, that the position embedding has; None for any.
        latents_per_token: frames of latents that become one token; the pipeline pads what is missing.
    """

    pixels_per_token: tuple[int, int]
    frames_per_token: int
    max_tokens: int | None
    latents_per_token: int = 1

    def grid(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Tokens along time, height and width."""
        latents = (num_frames - 1) // self.frames_per_token + 1
        return (
            -(-latents // self.latents_per_token),
            height // self.pixels_per_token[0],
            width // self.pixels_per_token[1],
        )


@dataclass(frozen=True)
class AttentionSite:
    """An attention module in the repeated blocks, its role, and how often it calls attention in one forward pass.

    `calls` is None where it calls once for each batch entry, with that entry's own number of text tokens.
    """

    module: torch.nn.Module
    role: Role
    calls: int | None = 1


@dataclass(frozen=True)
class BlockStack:
    """How a transformer runs its repeated blocks: for block in list: hidden, … = block(hidden, …), list after list.

    A block's first argument, and its result or the first of it, are the video tokens, (batch, tokens, channels).

    Attributes:
        lists: names of the lists, in the order in which they run.
        modulation: position of the argument with the modulation.
        modulation_per_token: its number of axes where it may differ from token to token; the second one then counts
            video tokens, or is 1.
        rotary: position of the argument with the rotary embedding, a tuple of tensors.
        rotary_axis: the axis of these that counts video tokens.
        returns_text: whether a block returns a tuple of the video tokens and its second argument, the text tokens,
            rather than the video tokens alone.
        leading: position of the argument that counts video tokens at the front which are modulated otherwise; None
            where there is none.
    """

    lists: tuple[str, ...]
    modulation: int
    rotary: int
    rotary_axis: int
    returns_text: bool = False
    modulation_per_token: int = 4
    leading: int | None = None


@dataclass(frozen=True)
class ModelFamily:
    """Models that share one transformer class of diffusers.

    Attributes:
        name: for messages.
        transformer: class name of the transformer; a pipeline may have several components of it.
            Models are matched by it: by its name or that of one of its bases.
        attentions: yields each attention of the repeated blocks, in the order in which they run.
        token_layout: from the transformer's configuration and the keyword arguments of its forward.
        geometry: from the configurations of transformer and autoencoder.
        stack: how its blocks run.
        roles: the roles that its attention has.
        pipelines: class names of pipelines that make a video of text or an image; a hint, others work as well.
        image_pipelines: those of them that also need an image to start from.
        guidance_is_built_in: whether the model takes the guidance scale as an input, and no negative prompt.
        frame_rate_argument: the pipeline's argument for the frame rate, if it has one.
        text_mask: the argument of the transformer's forward that tells real text tokens from padding, (batch, tokens),
            where attention to text is masked; the attention masks follow from it.
        time_signals: of what a caching policy can look at, that which depends on the timestep alone: the names of the
            transformer's submodules that make it, each from what the one before it made, the first from timesteps.
        block_signals: likewise, what every block is given: the position of the argument.
    """

    name: str
    transformer: str
    attentions: Callable[[torch.nn.Module], Iterator[AttentionSite]]
    token_layout: Callable[[Mapping[str, Any], Mapping[str, Any]], TokenLayout]
    geometry: Callable[[Mapping[str, Any], Mapping[str, Any]], Geometry]
    stack: BlockStack
    roles: tuple[Role, ...]
    pipelines: frozenset[str] = frozenset()
    image_pipelines: frozenset[str] = frozenset()
    guidance_is_built_in: bool = False
    frame_rate_argument: str | None = None
    text_mask: str | None = None
    time_signals: Mapping[Signal, tuple[str, ...]] = field(default_factory=dict)
    block_signals: Mapping[Signal, int] = field(default_factory=dict)

    @property
    def all_signals(self) -> frozenset[Signal]:
        """Every signal that a policy may ask for."""
        always = {Signal.NONE, Signal.HIDDEN, Signal.MODULATED_INPUT, Signal.FIRST_BLOCK_OUTPUT}
        return frozenset({*always, *self.time_signals, *self.block_signals})

    def needs(self, head_dim: int, dtype: torch.dtype, device: torch.device) -> list[Need]:
        """What a model of the family asks of a backend, per role."""
        return [Need(role, head_dim, str(dtype).removeprefix("torch."), str(device)) for role in self.roles]
