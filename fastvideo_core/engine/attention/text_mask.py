"""Keep a processor from making a mask of tokens x tokens out of the mask of its text, which says as much.

HunyuanVideo-1.5's processor makes one in every layer: 2.6 billion numbers for 121 frames at 480p, for which torch then
takes a slow kernel. An object that stands for the mask goes through the processor in its place, so that no code of
diffusers is copied.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.nn.functional import pad

from fastvideo_core.engine.forward_pass import ForwardPass, current_pass
from fastvideo_core.errors import DiffusersVersionError


class TextMask:
    """Stands for the mask that a processor is about to make, and stays what it is whatever is done to it.

    Args:
        text: which text tokens are real, (batch, text tokens); the text lies behind the video, its padding last.
    """

    def __init__(self, text: torch.Tensor) -> None:
        self.text = text

    @property
    def shape(self) -> torch.Size:
        """That of the text's mask, from which the processor sees how many tokens come before."""
        return self.text.shape

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not pad:
            raise DiffusersVersionError(f"the attention processor calls {func} on its mask; {_VERSIONS}")
        return args[0]

    def __getattr__(self, name: str) -> Any:
        raise DiffusersVersionError(f"the attention processor calls {name} on its mask; {_VERSIONS}")

    def _as_it_is(self, *args: Any) -> TextMask:
        return self

    bool = view = repeat = transpose = __and__ = _as_it_is


_VERSIONS = "fastvideo-core works with diffusers 0.40 to 0.42: pip install 'diffusers>=0.40,<0.43'"


def without_square_mask(processor: Any) -> Any:
    """A processor like this one, which makes no mask in the passes of a run; copies and pickles of it are like this."""
    kind: Any = type(processor)
    new = _subclass(kind)()
    vars(new).update(vars(processor), _was=processor)
    return new


@functools.cache
def _subclass(kind: Any) -> Any:
    function: Any = vars(kind)["__call__"]

    # The parameters of the one processor that this is for: diffusers looks at them to see what it takes.
    def call(
        self: Any,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        mask: Any = attention_mask
        # Compiled code is the same in and outside of runs: its operator makes the mask where it is needed.
        if mask is not None and (torch.compiler.is_compiling() or isinstance(current_pass(), ForwardPass)):
            mask = TextMask(mask)
        return function(self, attn, hidden_states, encoder_hidden_states, mask, image_rotary_emb)

    def as_it_was(self: Any, protocol: Any) -> Any:
        return kind, (), vars(self._was)

    return type(kind.__name__, (kind,), {"__call__": call, "__reduce_ex__": as_it_was})
