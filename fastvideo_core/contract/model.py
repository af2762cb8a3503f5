"""What the core must know of a model family to put attention and a caching policy on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
        extra_latents: frames of latents that stand beside the video's own, such as one of a reference image.
        latents_at_once: frames of latents that the pipeline makes at a time, however long the video; None for all.
    """

    pixels_per_token: tuple[int, int]
    frames_per_token: int
    max_tokens: int | None
    latents_per_token: int = 1
    extra_latents: int = 0
    latents_at_once: int | None = None

    def grid(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Tokens along time, height and width."""
        latents = (self.latents_at_once or (num_frames - 1) // self.frames_per_token + 1) + self.extra_latents
        return (
            -(-latents // self.latents_per_token),
            height // self.pixels_per_token[0],
            width // self.pixels_per_token[1],
        )


@dataclass(frozen=True)
class AttentionSite:
    """An attention module in the repeated blocks, its role, and how often it calls attention in one forward pass.

    `calls` is None where it calls once for each batch entry, with that entry's own number of text tokens. `video_keys`
    tells for AUDIO whether the keys are the video tokens, and the queries others.
    """

    module: torch.nn.Module
    role: Role
    calls: int | None = 1
    video_keys: bool = False


@dataclass(frozen=True)
class HintBlocks:
    """Blocks that run before a stack and make what the model adds to the video tokens between the stack's: hints.

    Each is called with the video tokens that enter the stack, and with as many tokens of the hints' own, that the first
    is given and each hands to the next. It returns its hint and these: (hint, own tokens).

    Attributes:
        list: the name of their list.
        own: position of the argument with the tokens of their own.
        modulation: as of `BlockStack`.
        rotary: as of `BlockStack`.
    """

    list: str
    own: int
    modulation: int
    rotary: int


@dataclass(frozen=True)
class BlockStack:
    """How a transformer runs its repeated blocks: for block in list: hidden, … = block(hidden, …), list after list.

    A block's first argument, and its result or the first of it, are the video tokens, (batch, tokens, channels).

    Attributes:
        lists: names of the lists, in the order in which they run.
        modulation: position of the argument with the modulation.
        modulation_per_token: its number of axes where it may differ from token to token; `modulation_axis` is the one
            that then counts video tokens, or is 1.
        rotary: position of the argument with the rotary embedding: a tensor, a tuple of tensors, or a pair of a tuple
            of tables and a tuple of the tokens' places in them.
        rotary_axis: the axis of these, or of the places, that counts video tokens; it may be counted from behind.
        returns_text: whether a block returns a tuple of the video tokens and its second argument, the text tokens,
            rather than the video tokens alone.
        leading: position of the argument that counts video tokens at the front which are modulated otherwise; None
            where there is none.
        second_stream: whether it returns such a tuple, and its second argument is a stream that the model puts out as
            well, such as audio: then a caching policy's residual is kept and added for both.
        more_modulation: positions of further arguments that may differ from token to token, as modulation may, or that
            may be left out: such as a position embedding that every block adds.
        more_rotary: positions of further rotary embeddings of the video tokens.
        video_tokens: position of the argument that counts the video tokens, if a block has one.
        counted: whether the model goes by the number of a block in its list, so that nothing else may stand there.
        hints: blocks whose hints are added between these, where the model has such.
        adapters: the name of a list of modules that run between the blocks, where the model has such: called with the
            video tokens, in the model's own order, they return what is added to them. Their attention stays with
            diffusers.
    """

    lists: tuple[str, ...]
    modulation: int
    rotary: int
    rotary_axis: int
    returns_text: bool = False
    modulation_per_token: int = 4
    leading: int | None = None
    second_stream: bool = False
    more_modulation: tuple[int, ...] = ()
    more_rotary: tuple[int, ...] = ()
    video_tokens: int | None = None
    counted: bool = False
    modulation_axis: int = 1
    hints: HintBlocks | None = None
    adapters: str | None = None

    @property
    def attending_lists(self) -> tuple[str, ...]:
        """The names of all lists whose attention is the backend's: these, and that of the hints behind them."""
        return self.lists if self.hints is None else (*self.lists, self.hints.list)

    @property
    def adds_between(self) -> bool:
        """Whether the model adds something between its blocks, and so counts them as it goes through the list."""
        return self.hints is not None or self.adapters is not None

    @property
    def returns_two(self) -> bool:
        """Whether a block returns a tuple of its first two arguments as it has changed them."""
        return self.returns_text or self.second_stream


def heads_of(config: Mapping[str, Any], role: Role) -> tuple[int, int]:
    """Number and size of a transformer's heads, where they are the same in all roles."""
    return config["num_attention_heads"], config["attention_head_dim"]


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
        heads: number and size of the heads of a role, from the transformer's configuration.
        idle: names of the attention modules that call no attention in a pass, where the arguments of the transformer's
            forward can bring that about; from its configuration and these.
        shared_by_sequence: whether several processes may share the video tokens: all that counts these is named in
            `stack`, and it has been tried.
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
    heads: Callable[[Mapping[str, Any], Role], tuple[int, int]] = heads_of
    idle: Callable[[Mapping[str, Any], Mapping[str, Any]], Iterable[str]] | None = None
    shared_by_sequence: bool = False

    @property
    def all_signals(self) -> frozenset[Signal]:
        """Every signal that a policy may ask for."""
        always = {Signal.NONE, Signal.HIDDEN, Signal.MODULATED_INPUT, Signal.FIRST_BLOCK_OUTPUT}
        return frozenset({*always, *self.time_signals, *self.block_signals})

    def needs(self, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> list[Need]:
        """What a model of the family, with that configuration of its transformer, asks of a backend, per role."""
        name = str(dtype).removeprefix("torch.")
        return [Need(role, self.heads(config, role)[1], name, str(device)) for role in self.roles]
