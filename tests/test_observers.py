"""Plugins that watch are told of every generation, also of one that fails, and hurt none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fastvideo_core import Generation, VideoGenerator, attach, hookimpl
from fastvideo_core.discovery.plugins import Plugin, Plugins, _register
from fastvideo_core.errors import CancelledError, OutputError
from tests.support.backends import core_alone
from tests.support.models import SIZE, run

SHORT: dict[str, Any] = {**SIZE, "guidance_scale": 3.0, "seed": 7}


class Watcher:
    """Keeps what it is told; raises where it is to."""

    def __init__(self, raises_in: str = "") -> None:
        self.told: list[tuple[Any, ...]] = []
        self.generations: set[int] = set()
        self.raises_in = raises_in

    def tell(self, event: str, generation: Generation, *more: Any) -> None:
        self.told.append((event, generation.steps_done, generation.num_steps, *more))
        self.generations.add(id(generation))
        if event == self.raises_in:
            raise ValueError("broken watcher")

    def plugin(self) -> Plugin:
        module = ModuleType("watcher")

        def fastvideo_generation_started(generation: Generation) -> None:
            self.tell("started", generation, generation.model, generation.prompt)

        def fastvideo_step_done(generation: Generation) -> None:
            self.tell("step", generation)

        def fastvideo_generation_finished(generation: Generation, receipt: Any) -> None:
            self.tell("finished", generation, receipt.num_inference_steps, generation.video_path)

        def fastvideo_generation_failed(generation: Generation, error: BaseException) -> None:
            self.tell("failed", generation, type(error))

        for function in list(vars().values()):
            if getattr(function, "__name__", "").startswith("fastvideo_"):
                setattr(module, function.__name__, hookimpl(function))
        module.__dict__["api_version"] = 2
        plugin = Plugin("watcher", "acme", "1.0")
        _register(plugin, module)
        return plugin


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Watcher]:
    def install(watcher: Watcher | None = None, **options: Any) -> Watcher:
        watcher = watcher or Watcher(**options)
        plugins = Plugins([*core_alone().all, watcher.plugin()])
        monkeypatch.setattr("fastvideo_core.engine.attachment.load_plugins", lambda: plugins)
        return watcher

    return install


STEPS = [("step", done, 3) for done in (1, 2, 3)]


def test_a_generation_of_two_runs_is_one(wan_pipeline: Any, watching: Callable[..., Watcher]) -> None:
    """As of a pipeline that makes a long video chunk after chunk."""
    watcher = watching()
    with attach(wan_pipeline) as fv, fv.following(Generation("WanPipeline")):
        run(wan_pipeline, output_type="latent")
        run(wan_pipeline, output_type="latent")
    steps = [*STEPS, *[("step", done, 6) for done in (4, 5, 6)]]
    assert watcher.told == [("started", 0, 3, None, None), *steps, ("finished", 6, 6, 3, None)]


def test_a_pipeline_of_one_s_own(wan_pipeline: Any, watching: Callable[..., Watcher]) -> None:
    watcher = watching()
    with attach(wan_pipeline):
        run(wan_pipeline)
    assert watcher.told == [("started", 0, 3, None, None), *STEPS, ("finished", 3, 3, 3, None)]
    assert len(watcher.generations) == 1


def test_a_generator_tells_model_prompt_and_file(
    wan_folder: Path, tmp_path: Path, watching: Callable[..., Watcher]
) -> None:
    watcher = watching()
    with VideoGenerator.from_pretrained(wan_folder) as generator:
        result = generator.generate_video("cat", **SHORT, output_path=tmp_path / "videos")
    started, finished = watcher.told[0], watcher.told[-1]
    assert started == ("started", 0, 3, str(wan_folder), "cat")
    assert finished == ("finished", 3, 3, 3, result.video_path)
    assert watcher.told[1:-1] == STEPS


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_is_told_once_and_goes_on_its_way(
    wan_pipeline: Any, watching: Callable[..., Watcher], error: type[BaseException]
) -> None:
    watcher = watching()

    def stop(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        raise error("stopped")

    with attach(wan_pipeline):
        with pytest.raises(error):
            run(wan_pipeline, callback_on_step_end=stop)
        assert watcher.told == [("started", 0, 3, None, None), ("failed", 0, 3, error)]
        run(wan_pipeline)
    assert watcher.told[-1][0] == "finished"


def test_a_video_that_cannot_be_written_has_failed(
    wan_folder: Path, tmp_path: Path, watching: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = watching()
    with VideoGenerator.from_pretrained(wan_folder) as generator:
        monkeypatch.setattr(
            "fastvideo_core.app.output.save", lambda *args: (_ for _ in ()).throw(OutputError("disk full"))
        )
        with pytest.raises(OutputError, match="disk full"):
            generator.generate_video("cat", **SHORT, output_path=tmp_path)
    assert [event for event, *_ in watcher.told] == ["started", "step", "step", "step", "failed"]


@pytest.mark.parametrize("event", ["started", "step", "finished"])
def test_a_watcher_that_raises_is_disabled_for_the_rest_of_the_run(
    wan_pipeline: Any, watching: Callable[..., Watcher], event: str
) -> None:
    watcher = watching(raises_in=event)
    warning = r"acme 1.0 failed in fastvideo_\w+ \(ValueError: broken watcher\); it is disabled for the rest of the run"
    told = []
    with attach(wan_pipeline) as fv:
        for _ in range(2):
            with pytest.warns(UserWarning, match=warning):
                run(wan_pipeline)
            told.append([one[0] for one in watcher.told])
            watcher.told.clear()
        assert fv.receipt.num_inference_steps == 3
    assert told[0] == told[1]
    assert told[0][-1] == event


def test_the_progress_bar_is_one_of_them(wan_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.progress import Progress

    seen: list[Any] = []
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    for name in ("start", "update", "stop"):
        original = getattr(Progress, name)

        def watched(self: Any, *args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Any:
            seen.append((name, kwargs.get("completed")))
            return original(self, *args, **kwargs)

        monkeypatch.setattr(Progress, name, watched)
    with VideoGenerator.from_pretrained(wan_folder) as generator:
        seen.clear()  # loading shows a bar, too
        generator.generate_video("cat", **SHORT, save_video=False)
        assert seen == [("start", None), ("update", 1), ("update", 2), ("update", 3), ("stop", None)]
        seen.clear()
        generator.progress = False
        generator.generate_video("cat", **SHORT, save_video=False)
        assert seen == []


def test_a_generation_that_is_cancelled_ends_after_its_step(
    watching: Callable[..., Watcher], wan_folder: Path, tmp_path: Path
) -> None:
    class Canceller(Watcher):
        def tell(self, event: str, generation: Generation, *more: Any) -> None:
            super().tell(event, generation, *more)
            if cancelling and event == cancelling[0]:
                generation.cancel()

    cancelling = ["step"]
    watcher = watching(Canceller())
    with VideoGenerator.from_pretrained(wan_folder, device="cpu") as generator:
        with pytest.raises(CancelledError, match=r"cancelled after 1 of 3 steps; nothing was written"):
            generator.generate_video("cat", output_path=tmp_path, **SHORT)
        assert [one[0] for one in watcher.told] == ["started", "step", "failed"]
        with pytest.raises(CancelledError, match="after 1 of 3"):
            next(generator.generate_videos([{"prompt": "cat"}], output_path=tmp_path, **SHORT))
        cancelling[0] = "started"
        with pytest.raises(CancelledError, match="after 0 of 3"):
            generator.generate_video("cat", output_path=tmp_path, **SHORT)
        assert not list(tmp_path.iterdir())
        cancelling.clear()
        assert generator.generate_video("cat", output_path=tmp_path, **SHORT).receipt.interrupted is False
