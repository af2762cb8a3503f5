"""A run: one denoising loop of an attached pipeline. All that belongs to it lies here, and ends with it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import torch

from fastvideo_core.contract.attention import AttentionBackend, Role, Run, TokenLayout, TokenOrder
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.engine.arrangement import Arrangement
from fastvideo_core.engine.attached_model import AttachedModel
from fastvideo_core.engine.attention.clock import KernelClock
from fastvideo_core.engine.attention.masks import MaskReader
from fastvideo_core.engine.attention.order import in_stream
from fastvideo_core.engine.attention.route import LoadedBackend, Route
from fastvideo_core.engine.attention.token_orders import OrderCheck
from fastvideo_core.engine.branches import CallsInStep
from fastvideo_core.engine.caching.choice import ChosenPolicy
from fastvideo_core.engine.caching.run_caching import RunCaching
from fastvideo_core.engine.call_site import CallSite
from fastvideo_core.engine.forward_pass import ForwardPass, begin, end
from fastvideo_core.engine.layers import num_hints, without
from fastvideo_core.engine.observers import Observers
from fastvideo_core.engine.parallel.decisions import SharedDecisions
from fastvideo_core.engine.parallel.guidance import GuidanceSplit, PassCall
from fastvideo_core.engine.parallel.processes import Processes
from fastvideo_core.engine.parallel.share import Share
from fastvideo_core.engine.parallel.shareable import check_shareable
from fastvideo_core.engine.plugin_calls import hook
from fastvideo_core.errors import BackendNotUsedError


class ActiveRun:
    """A run from its first step to its end.

    Attributes:
        site: the thread and the call of the pipeline that it belongs to.
        routes: what serves each role.
        passes: passes so far, per guidance branch.
        steps_done: steps of the loop that are done, of `num_steps`.
        layout: how the tokens of the latest pass were arranged.
        started: when it began, by `time.perf_counter`.
    """

    def __init__(
        self,
        model: AttachedModel,
        loaded: Mapping[Role, LoadedBackend],
        policy: ChosenPolicy | None,
        num_steps: int,
        observers: Observers,
        clock: KernelClock | None = None,
        own_loop: bool = False,
        guidance: GuidanceSplit | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.site = CallSite.of_pipeline()
        self._loop = None if own_loop else CallSite.of_caller()
        self.num_steps, self.steps_done = num_steps, 0
        self.passes: Counter[str] = Counter()
        self._passes_before_step = 0
        self.layout: TokenLayout | None = None
        self.observers = observers
        self.guidance, self.processes = guidance, processes
        decisions = SharedDecisions(processes, guidance) if processes and guidance else None
        self.caching = (
            RunCaching(policy, model.cached_model, model.family, model.transformers, model.pipe, num_steps, decisions)
            if policy
            else None
        )
        order = getattr(getattr(model.pipe, "scheduler", None), "order", 1)
        self._unnamed = CallsInStep(policy.policy.name if policy else None, order)
        self._masks = MaskReader()
        self.routes = {role: Route(one, self._masks, num_steps, clock) for role, one in loaded.items()}
        self._model = model
        self._announced = False
        self._check_order: OrderCheck | None = None
        self._started: dict[int, AttentionBackend | CachePolicy] = {}
        self._pass: ForwardPass | None = None
        self.computed_arguments: dict[str, Any] | None = None
        """What the transformer is to be called with instead; None: as it is."""
        self.started = time.perf_counter()

    def is_live(self) -> bool:
        """Whether its loop is still running; not if the thread was interrupted before it came to its end.

        A loop of the user's own may be suspended, as a generator or a coroutine, and says itself when it ends.
        """
        return self._loop is None or self._loop.is_live()

    def owns_pass(self, branch: str) -> bool:
        """Whether a pass that is about to start is this run's.

        It is if the same call of the pipeline makes it. A model that is called by hand in a callback names no branch
        where the pipeline does.
        """
        named = bool(self.passes) and "" not in self.passes
        return CallSite.of_pipeline() == self.site and (bool(branch) or not named)

    def start_pass(self, number: int, branch: str, arguments: dict[str, Any]) -> ForwardPass | None:
        """Begin a pass of the transformer of that number; None where its branch is computed with the next call.

        Raises:
            BackendError, CacheError, InputError: a backend or the policy refuses what is to run; at the first pass.
            BackendOutputError: in a pass before it, a backend returned NaN or infinity.
            CacheError: the policy cannot tell whose pass it is.
            ParallelError: other processes make another call, or the call is not as those before it.
        """
        named = bool(branch)
        branch = branch or self._unnamed.next(self.steps_done)
        step = self.passes[branch] if named else self.steps_done
        call: PassCall | None = PassCall(number, branch, named, step, arguments)
        self.passes[branch] += 1
        if self.guidance is not None and self.processes is not None and call is not None:
            self._tell_processes(self.processes, call)
            call = self.guidance.next_call(call)
            self.computed_arguments = call.arguments if call is not None else arguments
        return None if call is None else self._begin(call)

    def _tell_processes(self, processes: Processes, call: PassCall) -> None:
        """Have all processes compute the same: what the first one was given."""
        assert self.guidance is not None
        hidden = call.arguments["hidden_states"]
        processes.doing(f"step {self.steps_done}, branch {call.branch!r}")
        if not self._announced:
            processes.agree("calls of the transformer", {"branch": call.branch, "size": tuple(hidden.shape)})
        call.arguments["hidden_states"] = self.guidance.team.everyone.broadcast(hidden)

    def _begin(self, call: PassCall) -> ForwardPass:
        family, transformer = self._model.family, self._model.transformers[call.number]
        arguments, number = call.arguments, call.number
        layout = family.token_layout(transformer.config, arguments)
        text_mask = arguments.get(family.text_mask) if family.text_mask else None
        if text_mask is not None:
            layout = replace(layout, text_lengths=self._masks.text_lengths(text_mask))
        if not self._announced:
            self._announce(layout)
        order = self._wanted_order(layout, arguments["hidden_states"].device)
        gate = self.caching.gated_pass(number, call.branch, self.steps_done, arguments) if self.caching else None
        if order is not None:
            layout = replace(layout, ordered=True)
        self._masks.padding = order.padding if order is not None else 0
        self.layout = layout
        share = self._share(layout, order, call.batch)
        if share and share.halves and layout.text_lengths is not None:
            start, stop = share.halves.bounds(len(layout.text_lengths))
            layout = replace(layout, text_lengths=layout.text_lengths[start:stop])
        arranged = Arrangement(family.stack, order, share) if order is not None or share is not None else None
        blocks = self._model.blocks[number]
        if family.idle is not None:
            blocks = without(blocks, frozenset(family.idle(transformer.config, arguments)))
        self._pass = ForwardPass(
            self.routes,
            blocks,
            call.step,
            call.branch,
            layout,
            arranged,
            share,
            gate,
            transformer,
            num_hints(transformer, family),
        )
        begin(self._pass)
        return self._pass

    def _share(self, layout: TokenLayout, order: TokenOrder | None, batch: int) -> Share | None:
        """What of the pass is this process's; None where it has all."""
        if self.guidance is None:
            return None
        places = prod(layout.grid) if order is None else len(order.gather)
        share = Share(self.guidance.team.sequence, self.guidance.halves(batch), places)
        if share.sequence.size == 1 and share.halves is None:
            return None
        check_shareable(self._model.family, layout)
        share.check()
        return share

    def end_pass(self, completed: bool, ended: ForwardPass | None = None) -> None:
        """A pass is over: the latest that was started, if no other is given.

        Raises:
            BackendNotUsedError: it went around the backend; not where it ended with an error of its own.
        """
        ended, self._pass = ended or self._pass, None
        if ended is None:
            return
        end(ended)
        if completed:
            ended.finish()

    def step_done(self, done: int) -> None:
        """Some steps of the loop are done.

        Raises:
            CacheError: the policy goes by branches, and the step called the transformer otherwise than the first.
            ParallelError: likewise, where processes share the branches.
            BackendNotUsedError: without a pass of the transformers that were attached.
        """
        self._unnamed.step_done(self.steps_done)
        if self.guidance is not None:
            self.guidance.step_done()
        self.steps_done = done
        self._check_passes(since=self._passes_before_step)
        self._passes_before_step = self.passes.total()
        self.observers.step_done(done)

    def check_passes(self) -> None:
        """Raise BackendNotUsedError if no pass has come to this run."""
        self._check_passes(since=0)

    def _check_passes(self, since: int) -> None:
        if self.passes.total() > since:
            return
        parts = " and ".join(self._model.parts)
        raise BackendNotUsedError(
            f"step {max(0, self.steps_done - 1)} ran without a forward pass of {parts} as attached: the pipeline "
            "computes with something else; attach what it uses"
        )

    def check_outputs(self) -> None:
        """Raise BackendOutputError if a backend returned what is not finite; when the device is done."""
        for route in self.routes.values():
            route.finish()

    def participants(self) -> list[AttentionBackend | CachePolicy]:
        """The backends and the policy that have let this run in, each once; theirs is `end_run`."""
        return list(self._started.values())

    def _wanted_order(self, layout: TokenLayout, device: torch.device) -> TokenOrder | None:
        """The order that the backend of the video tokens' own attention asks for, where they may be in another."""
        if layout.fixed:
            return None
        for role in (Role.SELF, Role.JOINT):
            if role in self.routes:
                backend = self.routes[role].resolution.backend
                with hook(backend, "token_order"):
                    order = backend.token_order(layout, device)
                self._check_order = self._check_order or OrderCheck(backend.name)
                checked = self._check_order(order, layout)
                return in_stream(checked, layout) if checked is not None and role is Role.SELF else checked
        return None

    def _announce(self, layout: TokenLayout) -> None:
        """Let each backend, and the policy, refuse what it cannot serve before anything is computed."""
        self._announced = True
        layers = self._model.num_layers()
        runs = {
            need.role: Run(
                family=self._model.family.name,
                role=need.role,
                layout=layout,
                num_steps=self.num_steps,
                num_layers=layers[need.role],
                num_heads=self._model.family.heads(self._model.transformers[0].config, need.role)[0],
                head_dim=need.head_dim,
                dtype=need.dtype,
                device=need.device,
            )
            for need in self._model.needs
        }
        for role, run in runs.items():
            self._start(self.routes[role].resolution.backend, run)
            if fallback := self.routes[role].fallback:
                self._start(fallback.resolution.backend, run)
        if self.caching:
            self._start(self.caching.gate.policy, runs.get(Role.SELF) or runs[Role.JOINT])

    def _start(self, participant: AttentionBackend | CachePolicy, run: Run) -> None:
        with hook(participant, "start_run"):
            participant.start_run(run)
        self._started[id(participant)] = participant
