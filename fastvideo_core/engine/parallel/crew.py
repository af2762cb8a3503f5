"""What an attachment knows of the other processes: who they are, that they are alike, and what each has run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch

from fastvideo_core.contract.receipt import CacheReceipt, ParallelReceipt, RankReceipt, Receipt
from fastvideo_core.engine.attention.clock import KernelClock
from fastvideo_core.engine.parallel.degrees import Degrees, Parallel, automatic_degrees, read_degrees
from fastvideo_core.engine.parallel.guidance import GuidanceSplit
from fastvideo_core.engine.parallel.processes import Processes, environment_of_core
from fastvideo_core.errors import ParallelError, PolicyMismatchError

if TYPE_CHECKING:
    from fastvideo_core.contract.attention import Role
    from fastvideo_core.engine.attached_model import AttachedModel
    from fastvideo_core.engine.attention.resolve import Resolution
    from fastvideo_core.engine.caching.choice import ChosenPolicy
    from fastvideo_core.engine.parallel.peers import Peers
    from fastvideo_core.engine.run import ActiveRun


class Crew:
    """The processes that make the videos of one attachment.

    Args:
        degrees: what was asked for; None: as each run has it best.
    """

    def __init__(self, processes: Processes, degrees: Degrees | None) -> None:
        self.processes, self.degrees = processes, degrees

    @classmethod
    def join(cls, parallel: Parallel, device: torch.device) -> Crew | None:
        """The crew; None where nothing was asked for, or there is one process.

        Raises:
            InputError: what was asked for is no degrees, or not for the number of processes.
            ParallelError: there are no other processes to be found.
        """
        if parallel is None:
            return None
        processes = Processes(device)
        degrees = read_degrees(parallel, processes.size)
        return cls(processes, degrees) if processes.size > 1 else None

    def check_alike(
        self, model: AttachedModel, resolutions: Mapping[Role, Resolution], policy: ChosenPolicy | None
    ) -> None:
        """Raise ParallelError where something is not the same in all processes."""
        agree = self.processes.agree
        agree("settings of the environment", environment_of_core())
        agree(
            "pipelines",
            {
                "the class": type(model.pipe).__name__,
                "the dtype": model.dtypes,
                "the kind of device": model.device.type,
                "parallel": self.degrees,
                **{
                    f"{name} of {part}": repr(value)
                    for part, transformer in zip(model.parts, model.transformers, strict=True)
                    for name, value in dict(transformer.config).items()
                    if not name.startswith("_")
                },
            },
        )
        agree("attention backends", {role.value: one.backend.name for role, one in resolutions.items()})
        agree("caching policies", {"the policy": _policy(policy)})

    def start_run(
        self,
        model: AttachedModel,
        policy: ChosenPolicy | None,
        num_steps: int,
        clock: KernelClock | None,
        own_loop: bool,
    ) -> GuidanceSplit:
        """How the calls of a run that is about to start are shared.

        Raises:
            ParallelError: the processes do not start the same run.
            PolicyMismatchError: the policy needs one branch for the other, and they are to be computed at once.
        """
        try:
            self.processes.start_run()
            self.processes.agree("runs", {"the number of steps": num_steps, "the caching policy": _policy(policy)})
            degrees = self.degrees or self._automatic(model, policy, own_loop)
            if policy is not None and policy.policy.sees_others and degrees.guidance > 1:
                raise PolicyMismatchError(
                    f"{policy.policy.name} needs the residual of one guidance branch for the other, and parallel "
                    f"guidance computes both at once; use parallel={{'sequence': {self.processes.size}}}"
                )
            return GuidanceSplit(degrees, partial(self.processes.team, clock=clock))
        except BaseException as error:
            self.processes.left(error)
            raise

    def anywhere(self, what: str, is_so: bool) -> bool:
        """Whether something is so in any process."""
        return any(self.processes.exchange(what, is_so))

    def everyone(self) -> Peers:
        """All processes, outside of a run."""
        return self.processes.team(Degrees(self.processes.size), None).everyone

    def same_latents(self, made: Any) -> Any:
        """The first process's latents: a pipeline without a generator draws others in each."""
        everyone = self.everyone()

        def same(thing: Any) -> Any:
            if isinstance(thing, tuple | list):
                return type(thing)(same(one) for one in thing)
            return everyone.broadcast(thing) if isinstance(thing, torch.Tensor) else thing

        return same(made)

    def merged(self, run: ActiveRun, receipt: Receipt) -> Receipt:
        """The receipt of all processes together, which is the same in each.

        Raises:
            ParallelError: they did not run the same.
        """
        team = run.guidance.team if run.guidance is not None else None
        assert team is not None
        clock = self.processes.traffic.clock
        own = RankReceipt(
            rank=self.processes.rank,
            device=receipt.device,
            calls={role: one.calls for role, one in receipt.attention.items()},
            kernels={role: {k.kernel: k.calls for k in one.kernels} for role, one in receipt.attention.items()},
            bytes_sent=self.processes.traffic.sent,
            communication_seconds=clock.seconds() if clock else None,
            peak_memory_bytes=receipt.peak_memory_bytes,
        )
        every = self.processes.exchange("receipts", _Told.of(receipt, team.guidance.index, own))
        if _differ(every):
            self._name_difference(receipt, [one.half for one in every])
        return _merge(
            receipt,
            every,
            ParallelReceipt(
                processes=self.processes.size,
                sequence=team.degrees.sequence,
                guidance=team.degrees.guidance,
                ranks=[one.own for one in every],
            ),
        )

    def _name_difference(self, receipt: Receipt, halves: list[int]) -> None:
        """Raise ParallelError with what differs; only now does everyone tell all."""
        every = self.processes.exchange("receipts that differ", (_all_have(receipt), _half_has(receipt)))
        for rank, (of_all, of_half) in enumerate(every):
            _compare(every[0][0], of_all, rank)
            _compare(every[halves.index(halves[rank])][1], of_half, rank)

    def left(self, error: BaseException) -> None:
        """A run ended here with an error."""
        self.processes.left(error)

    def _automatic(self, model: AttachedModel, policy: ChosenPolicy | None, own_loop: bool) -> Degrees:
        two = not own_loop and bool(getattr(model.pipe, "do_classifier_free_guidance", False))
        if policy is not None and policy.policy.sees_others:
            two = False
        return automatic_degrees(self.processes.size, two)


def _policy(policy: ChosenPolicy | None) -> str | None:
    return None if policy is None else f"{policy.policy.name} with {policy.policy.settings_used()}"


@dataclass(frozen=True)
class _Told:
    """What each process tells of its receipt.

    Attributes:
        half: which half of the processes it is of.
        all_have, half_has: hashes of what is the same in all processes, and in those of its half.
        own: what it ran.
    """

    half: int
    all_have: str
    half_has: str
    own: RankReceipt
    skipped: dict[str, int]
    schedule: dict[str, str]

    @classmethod
    def of(cls, receipt: Receipt, half: int, own: RankReceipt) -> _Told:
        hashes = _hash(_all_have(receipt)), _hash(_half_has(receipt))
        return cls(half, *hashes, own, receipt.steps_skipped, _schedule(receipt))


def _hash(fields: dict[str, Any]) -> str:
    return sha256(json.dumps(fields, sort_keys=True, default=repr).encode()).hexdigest()


def _differ(every: list[_Told]) -> bool:
    of_halves = {(one.half, one.half_has) for one in every}
    return len({one.all_have for one in every}) > 1 or len(of_halves) > len({one.half for one in every})


def _all_have(receipt: Receipt) -> dict[str, Any]:
    return {
        "the number of steps": receipt.num_inference_steps,
        "the token grid": receipt.token_grid,
        "the passes": {b: n + receipt.steps_skipped.get(b, 0) for b, n in receipt.steps_computed.items()},
        "attention": {role: (one.backend, repr(one.settings)) for role, one in receipt.attention.items()},
    }


def _half_has(receipt: Receipt) -> dict[str, Any]:
    return {
        "skipped steps": receipt.steps_skipped,
        "the schedule": _schedule(receipt),
        "calls of attention": {role: one.calls for role, one in receipt.attention.items()},
    }


def _schedule(receipt: Receipt) -> dict[str, str]:
    return receipt.cache.schedule if receipt.cache else {}


def _compare(first: dict[str, Any], other: dict[str, Any], rank: int) -> None:
    for name, value in first.items():
        if other[name] != value:
            raise ParallelError(
                f"the processes did not run the same: {name} was {value!r} in one and {other[name]!r} in process "
                f"{rank}, so the video is wrong; give all of them the same model, arguments and seeds"
            )


def _merge(receipt: Receipt, every: list[_Told], parallel: ParallelReceipt) -> Receipt:
    """Where halves compute one branch each, what was skipped and the schedule are those of the one that did."""
    passes = {b: n + receipt.steps_skipped.get(b, 0) for b, n in receipt.steps_computed.items()}
    skipped = {branch: max(one.skipped.get(branch, 0) for one in every) for branch in receipt.steps_skipped}
    cache: CacheReceipt | None = receipt.cache
    if cache is not None:
        names = dict.fromkeys(name for one in every for name in one.schedule)
        schedule = {name: max((one.schedule.get(name, "") for one in every), key=len) for name in names}
        cache = replace(cache, schedule=schedule)
    return replace(
        receipt,
        steps_skipped=skipped,
        steps_computed={branch: number - skipped.get(branch, 0) for branch, number in passes.items()},
        cache=cache,
        parallel=parallel,
    )
