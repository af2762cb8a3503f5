"""Backends and policies are told of a run once it starts and, whatever comes of it, once it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from fastvideo_core import Role, Run, attach
from fastvideo_core.errors import AttachError, BackendMismatchError, BackendOutputError, CacheError
from tests.support.backends import Recorder, plugins_with
from tests.support.models import run_to_latents as run
from tests.support.policies import Scripted

Told = list[tuple[str, Any]]


class Backend(Recorder):
    def __init__(self, told: Told, refuses: Exception | None = None, fails: Exception | None = None) -> None:
        super().__init__("TOLD")
        self.told, self.refuses, self.fails = told, refuses, fails

    def start_run(self, run: Run) -> None:
        if self.refuses and run.role is Role.CROSS:
            raise self.refuses
        self.told.append(("backend started", run.role))

    def end_run(self, error: BaseException | None) -> None:
        self.told.append(("backend ended", error))
        if self.fails:
            raise self.fails

    def run_details(self) -> dict[str, Any]:
        return {"told": len(self.told)}


@dataclass
class Policy(Scripted):
    name = "POLICY"
    main_setting: ClassVar[str | None] = None
    told: Told = field(default_factory=list)
    refuses: Exception | None = None
    fails: Exception | None = None

    def start_run(self, run: Run) -> None:
        if self.refuses:
            raise self.refuses
        self.told.append(("policy started", run))

    def end_run(self, error: BaseException | None) -> None:
        self.told.append(("policy ended", error))
        if self.fails:
            raise self.fails


def names(told: Told) -> list[str]:
    return [name for name, _ in told]


STARTED = ["backend started", "backend started", "policy started"]
ENDED = ["backend ended", "policy ended"]


def test_a_run_that_ends_well(wan_pipeline: Any) -> None:
    told: Told = []
    with attach(wan_pipeline, attention_backend=Backend(told), cache=Policy("CR", told=told)) as fv:
        run(wan_pipeline)
        assert names(told) == STARTED + ENDED
        assert [error for _, error in told[3:]] == [None, None]
        assert fv.receipt.attention["SELF"].details == {"told": 5}, "details are asked for last"
        run(wan_pipeline)
        assert names(told) == 2 * (STARTED + ENDED)
    about = told[2][1]
    assert (about.family, about.role, about.num_steps, about.layout.grid) == ("Wan", Role.SELF, 3, (3, 2, 3))


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_a_run_that_fails(wan_pipeline: Any, error: BaseException) -> None:
    told: Told = []

    def stop(pipe: Any, step: int, timestep: Any, values: Any) -> Any:
        raise error

    with attach(wan_pipeline, attention_backend=Backend(told), cache=Policy("CR", told=told)):
        with pytest.raises(type(error)):
            run(wan_pipeline, callback_on_step_end=stop)
        assert told[3:] == [("backend ended", error), ("policy ended", error)]


def test_only_those_that_let_a_run_in_are_told_of_its_end(wan_pipeline: Any) -> None:
    told: Told = []
    no = BackendMismatchError("not this one")
    backend = Backend(told, refuses=no)
    with (
        attach(wan_pipeline, attention_backend=backend, cache=Policy("CR", told=told)),
        pytest.raises(BackendMismatchError, match="not this one"),
    ):
        run(wan_pipeline)
    assert told == [("backend started", Role.SELF), ("backend ended", no)]
    told.clear()
    never = CacheError("nor this")
    policy = Policy("CR", told=told, refuses=never)
    with attach(wan_pipeline, attention_backend=Backend(told), cache=policy), pytest.raises(CacheError):
        run(wan_pipeline)
    assert names(told) == ["backend started", "backend started", "backend ended"]
    assert told[-1][1] is never


def test_what_the_end_raises_fails_a_good_run(wan_pipeline: Any) -> None:
    told: Told = []
    late = BackendOutputError("noticed late")
    with attach(wan_pipeline, attention_backend=Backend(told, fails=late), cache=Policy("CR", told=told)) as fv:
        with pytest.raises(BackendOutputError, match="noticed late"):
            run(wan_pipeline)
        assert told[3:] == [("backend ended", None), ("policy ended", late)], "the policy is told of it"
        with pytest.raises(AttachError, match="there is no receipt yet"):
            _ = fv.receipt


def test_what_the_end_raises_does_not_hide_the_first_error(wan_pipeline: Any) -> None:
    told: Told = []

    def stop(pipe: Any, step: int, timestep: Any, values: Any) -> Any:
        raise RuntimeError("the first")

    backend, policy = Backend(told, fails=ValueError("later")), Policy("CR", told=told, fails=KeyError("last"))
    with (
        attach(wan_pipeline, attention_backend=backend, cache=policy),
        pytest.raises(RuntimeError, match="the first") as raised,
    ):
        run(wan_pipeline, callback_on_step_end=stop)
    notes = " ".join(raised.value.__notes__)
    assert "ValueError: later" in notes
    assert "KeyError: 'last'" in notes


def test_the_fallback_is_told_too(wan_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: Told = []
    first = Recorder("FIRST")
    monkeypatch.setattr("fastvideo_core.engine.attachment.load_plugins", lambda: plugins_with(first, Backend(told)))
    monkeypatch.setenv("FASTVIDEO_ATTENTION_FALLBACK", "TOLD")
    with attach(wan_pipeline, attention_backend="FIRST"):
        run(wan_pipeline)
    assert names(told) == ["backend started", "backend started", "backend ended"]
