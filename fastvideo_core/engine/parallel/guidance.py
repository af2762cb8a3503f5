"""Guidance branches on two halves of the processes, with pipelines that know nothing of it.

A pipeline that calls its transformer once for each branch is given a buffer by the first call, which the second one
fills: by then each half has computed one of the two, and they give one another what came out. Where a pipeline calls
once for a batch of both, the batch is cut within the block stack. Which of the two it is, the first step shows: it is
computed by both halves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from fastvideo_core.engine.parallel.degrees import Degrees, automatic_degrees
from fastvideo_core.errors import ParallelError

if TYPE_CHECKING:
    from fastvideo_core.engine.parallel.peers import Peers
    from fastvideo_core.engine.parallel.processes import Team

_BATCH_OF_BOTH = "cond_uncond"
"""What diffusers' pipelines call a batch with both branches."""

_HARMLESS = {torch.Tensor.shape, torch.Tensor.dtype, torch.Tensor.device}


@dataclass(frozen=True)
class PassCall:
    """A call of a transformer by the pipeline.

    Attributes:
        number: which of its transformers.
        step: the step that backends are told.
        named: whether the pipeline named the branch.
    """

    number: int
    branch: str
    named: bool
    step: int
    arguments: dict[str, Any]

    @property
    def batch(self) -> int:
        return int(self.arguments["hidden_states"].shape[0])


class _Pending(torch.Tensor):
    """The result of a call that has not been computed yet."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in {getattr(one, "__get__", None) for one in _HARMLESS}:
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        raise ParallelError(
            "the pipeline looks at the result of one guidance branch before it calls the transformer for the other, "
            "so they cannot be computed at once: use sequence alone, such as parallel={'sequence': N}"
        )


class GuidanceSplit:
    """How the calls of one run are shared; where guidance is not cut, each is everyone's.

    Args:
        degrees: what the run begins with.
        team: makes the groups of degrees.
    """

    def __init__(self, degrees: Degrees, team: Callable[[Degrees], Team]) -> None:
        self._make_team = team
        self.team = team(degrees)
        self.apart = False
        """Whether each half computes one branch."""
        self._learning, self._batched = degrees.guidance > 1, False
        self._seen: list[PassCall] = []
        self._templates: dict[int, Any] = {}
        self._held: PassCall | None = None
        self._buffer: Any = None
        self._now: PassCall | None = None

    def next_call(self, call: PassCall) -> PassCall | None:
        """What to compute here when the pipeline makes this call; None: nothing, it is held until the next.

        Raises:
            ParallelError: it is not the call that the first step had there.
        """
        self._now = call
        if self._learning:
            self._seen.append(call)
            if len(self._seen) == 1 and call.branch == _BATCH_OF_BOTH:
                self._learned()
        if not self.apart:
            return call
        held = self._held
        if held is None:
            self._held = call
            return None
        if (held.branch, held.number) == (call.branch, call.number):
            raise self._other_calls(f"called it twice for {call.branch!r}")
        return held if self.team.guidance.index == 0 else call

    def halves(self, batch: int) -> Peers | None:
        """Those that share the batch of a call; None where it is not cut, as one that further guidance makes alone."""
        return self.team.guidance if self._batched and batch > 1 else None

    def forward(self, compute: Callable[[], Any]) -> Any:
        """The transformer's forward in the place of `compute`, for the call that came last."""
        call, self._now = self._now, None
        if call is None:
            return compute()
        if not self.apart:
            output = compute()
            if self._learning:
                self._templates[call.number] = output
            return output
        if self._held is call:
            template = self._templates.get(call.number) or next(iter(self._templates.values()))
            self._buffer = _mapped(template, lambda tensor: torch.empty_like(tensor).as_subclass(_Pending))
            return self._buffer
        first, self._held, self._buffer = self._buffer, None, None
        both = [self.team.guidance.gather(one[None], 0, 2) for one in _tensors(compute())]
        for buffer, (earlier, _) in zip(_tensors(first), both, strict=True):
            buffer.__class__ = torch.Tensor
            buffer.copy_(earlier)
        later = iter([second for _, second in both])
        return _mapped(first, lambda _: next(later))

    def step_done(self) -> None:
        """A step is over; after the first it is known how the pipeline computes its branches.

        Raises:
            ParallelError: the step had one call where the first had two; or there is nothing to cut.
        """
        if self._held is not None:
            raise self._other_calls(f"called it for {self._held.branch!r} alone")
        if self._learning and self._seen:
            self._learned()

    def _learned(self) -> None:
        calls, self._seen, self._learning = self._seen, [], False
        names = [call.branch for call in calls]
        alternate = all(one != other for one, other in pairwise(names))
        if len(set(names)) == 2 and len(names) % 2 == 0 and alternate:
            self.apart = True
        elif len(set(names)) == 1 and all(call.batch % 2 == 0 for call in calls):
            self._batched = True
        elif self.team.degrees.automatic:
            self.team = self._make_team(automatic_degrees(self.team.everyone.size, two_branches=False))
        else:
            size = self.team.everyone.size
            raise ParallelError(
                f"parallel asks for guidance 2, but a step of this run calls the transformer {len(calls)} times, for "
                f"{', '.join(map(repr, dict.fromkeys(names)))} with a batch of {calls[0].batch}: there are no two "
                f"branches to compute at once. Switch guidance on, or use parallel={{'sequence': {size}}}"
            )

    def _other_calls(self, what: str) -> ParallelError:
        return ParallelError(
            f"the first step called the transformer once for each guidance branch, and a later one {what}: branches "
            f"that come and go cannot be computed at once; use parallel={{'sequence': {self.team.everyone.size}}}"
        )


def _tensors(output: Any) -> list[torch.Tensor]:
    values = list(output.values()) if isinstance(output, Mapping) else list(output)
    if not all(isinstance(value, torch.Tensor) for value in values):
        raise ParallelError(
            f"the transformer returns {[type(value).__name__ for value in values]}, which processes cannot give one "
            "another; use sequence alone, such as parallel={'sequence': N}"
        )
    return values


def _mapped(output: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """An output of the same kind with other tensors."""
    new = [function(tensor) for tensor in _tensors(output)]
    return type(output)(**dict(zip(output, new, strict=True))) if isinstance(output, Mapping) else tuple(new)
