"""The suite that proves a caching policy: subclass it, give it the policy, and run pytest."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import pytest
import torch

from fastvideo_core.contract.caching import Branch, CachePolicy, Signal
from fastvideo_core.engine.caching.choice import prepare_policy
from fastvideo_core.errors import PolicyMismatchError
from fastvideo_core.testing.branches import (
    MODEL,
    Inputs,
    cached,
    drive,
    guided,
    in_turns,
    latents,
    letters_of,
    small_pipeline,
)
from fastvideo_core.testing.fixed import Suite, counting, no_waiting
from fastvideo_core.testing.subject import discovered, installed_plugins


class CachePolicySuite(Suite):
    """Tests of one caching policy, driven by tensors alone and on a small Wan with random weights.

    Subclass it in a test file, and set `policy` to one that skips steps, and `never` to one whose settings let it skip
    none, such as a threshold of 0:

        class TestMyPolicy(CachePolicySuite):
            policy = MyPolicy(threshold=0.2)
            never = MyPolicy(threshold=0)

    A subclass may add tests; replacing one of these is a TypeError when the class is made.
    """

    policy: ClassVar[CachePolicy]
    never: ClassVar[CachePolicy]

    def test_discovery_does_not_import_torch(self) -> None:
        if self.policy.name not in installed_plugins().policy_names():
            pytest.skip("the policy is an object, not an installed plugin")
        found = discovered()
        assert self.policy.name in found.policies
        assert not {"torch", "diffusers", "transformers"} & found.modules

    def test_it_skips_some_steps_and_never_the_first(self) -> None:
        for num_steps in (1, 2, 3, 20, 50):
            made = drive(self.policy, guided(num_steps), in_turns("cond", "uncond", num_steps))
            for outcome in made.values():
                assert outcome.letters[0] == "C"
                assert len(outcome.letters) == num_steps
        every = "".join(outcome.letters for outcome in made.values())
        assert set(every) > {"C"}, "it skips nothing in 50 steps, so nothing is proven: give the suite other settings"

    def test_settings_that_skip_nothing_change_nothing(self) -> None:
        for pipe in _served(self.never):
            plain = latents(pipe)
            with cached(pipe, self.never) as attachment:
                assert torch.equal(latents(pipe), plain)
            assert all(set(letters) == {"C"} for letters in letters_of(attachment).values())

    def test_the_same_run_is_the_same_twice(self) -> None:
        first, again = (drive(self.policy, guided(29), in_turns("cond", "uncond", 29)) for _ in range(2))
        assert all(again[branch].same_as(outcome) for branch, outcome in first.items())

    def test_the_plan_is_what_would_be_decided(self) -> None:
        prepared = prepare_policy(self.policy, MODEL)
        planned = False
        for num_steps in (2, 9, 30, 50):
            for seed in (0, 1):
                branches, turns = guided(num_steps, seed), in_turns("cond", "uncond", num_steps)
                with_plan = drive(self.policy, branches, turns)
                asked = drive(self.policy, branches, turns, ahead=False)
                assert all(asked[branch].same_as(outcome) for branch, outcome in with_plan.items())
                planned = planned or any(_plans(prepared, inputs, branch) for branch, inputs in branches.items())
        if not planned:
            pytest.skip(f"{self.policy.name} plans nothing")

    def test_branches_know_nothing_of_one_another(self) -> None:
        """But for what the policy says that they share; the branch that comes first in each step is as it is alone."""
        prepared = prepare_policy(self.policy, MODEL)
        shares = prepared.branches_decide_together or prepared.sees_others
        branches = {"cond": Inputs.of(0, 20), "uncond": Inputs.of(5, 20), "other": Inputs.of(9, 7)}
        if prepared.sees_others:
            del branches["other"]
        turns = [branch for step in range(20) for branch in branches if step < len(branches[branch].hidden)]
        for ahead in (True, False):
            together = drive(self.policy, branches, turns, ahead)
            for branch, inputs in branches.items() if not shares else [("cond", branches["cond"])]:
                alone = drive(self.policy, {branch: inputs})[branch]
                assert together[branch].same_as(alone), f"branch {branch!r} changes when others run beside it"

    def test_runs_know_nothing_of_one_another(self) -> None:
        for pipe in _served(self.policy):
            with cached(pipe, self.policy) as attachment:
                first, letters = latents(pipe), letters_of(attachment)
                latents(pipe, num_steps=5, seed=3, guidance_scale=1.0)
                for error in (RuntimeError, KeyboardInterrupt):
                    with pytest.raises(error):
                        latents(pipe, seed=4, callback_on_step_end=_raiser(error))
                assert torch.equal(latents(pipe), first)
                assert letters_of(attachment) == letters

    def test_its_settings_stay_as_they_are(self) -> None:
        before = {name: repr(value) for name, value in vars(self.policy).items()}
        drive(self.policy, guided(20), in_turns("cond", "uncond", 20))
        after = {name: repr(value) for name, value in vars(self.policy).items()}
        assert after == before, "a policy keeps nothing of a run itself: that belongs into the state that `start` makes"

    def test_what_it_is_given_is_left_alone(self) -> None:
        written: list[str] = []
        drive(_watched(self.policy, written), guided(40), in_turns("cond", "uncond", 40), ahead=False)
        assert not written, written[0]

    def test_nothing_waits_for_the_device_unless_the_signal_must_be_read(self) -> None:
        prepared = prepare_policy(self.policy, MODEL)
        branches = guided(20)
        if prepared.signal is not Signal.NONE and not _plans(prepared, branches["cond"], "cond"):
            pytest.skip(f"{self.policy.name} decides by the value of {prepared.signal.value}")
        assert all(inputs.changes for inputs in branches.values()), "read here, once, before waiting is refused"
        with no_waiting("cpu"):
            drive(self.policy, branches, in_turns("cond", "uncond", 20))

    def test_nothing_is_left_in_the_model(self) -> None:
        pipe = small_pipeline()
        plain, before = latents(pipe), _description(pipe.transformer)
        with cached(pipe, self.policy):
            latents(pipe)
        assert _description(pipe.transformer) == before
        assert torch.equal(latents(pipe), plain)

    def test_compiled_blocks_make_no_more_graphs(self) -> None:
        pipe = small_pipeline()
        with cached(pipe, self.policy):
            eager = latents(pipe)
        graphs: list[Any] = []
        torch.compiler.reset()
        pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=counting(graphs))
        with cached(pipe, self.never):
            latents(pipe)
        without = len(graphs)
        with cached(pipe, self.policy):
            compiled = latents(pipe)
        torch.compiler.reset()
        assert len(graphs) == without, f"{len(graphs) - without} graphs more than the {without} without skipping"
        torch.testing.assert_close(compiled, eager)


def _served(policy: CachePolicy) -> Iterator[Any]:
    """A pipeline with one expert, and one with two unless the policy refuses those."""
    yield small_pipeline()
    pipe = small_pipeline(experts=2)
    try:
        cached(pipe, policy).detach()
    except PolicyMismatchError:
        return
    yield pipe


def _plans(policy: CachePolicy, inputs: Inputs, branch: str) -> bool:
    """Whether it makes its schedule in advance."""
    changes = inputs.changes if policy.signal in MODEL.known_ahead else None
    return policy.plan(Branch(MODEL, branch, 0, len(inputs.hidden), (), changes)) is not None


def _watched(policy: CachePolicy, written: list[str]) -> CachePolicy:
    """The policy; a line is added for each tensor that it was given and wrote to."""
    watched: Any = copy.copy(policy)

    def watch(name: str, tensors: Callable[..., Iterable[torch.Tensor | None]]) -> None:
        function = getattr(policy, name)

        def call(*args: Any) -> Any:
            given = [tensor for tensor in tensors(*args) if tensor is not None]
            before = [tensor._version for tensor in given]
            result = function(*args)
            if [tensor._version for tensor in given] != before:
                written.append(f"{name} wrote to a tensor that it was given, in step {args[0].index}")
            return result

        setattr(watched, name, call)

    watch("decide", lambda step, state: (step.hidden, step.signal, *step.others.values()))
    watch(
        "forecast",
        lambda step, state, computed: (step.hidden, *step.others.values(), *(one.residual for one in computed)),
    )
    watch("observe", lambda step, state, residual: (step.hidden, residual, *step.others.values()))
    checked: CachePolicy = watched
    return checked


def _raiser(error: type[BaseException]) -> Any:
    def callback(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 3:
            raise error("stopped by the suite")
        return {}

    return callback


def _description(transformer: Any) -> Any:
    """What a policy might have left behind: names, hooks, attributes."""
    modules = {
        name: (len(module._forward_hooks), len(module._forward_pre_hooks), sorted(vars(module)))
        for name, module in transformer.named_modules()
    }
    return modules, list(transformer.state_dict())
