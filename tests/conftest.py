"""Small real models, and an environment that no setting of the developer reaches."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tests.support.collector  # noqa: F401  # before what is imported below
from tests.support.backends import Recorder, plugins_with
from tests.support.environment import Environment, build_environment
from tests.support.order import longest_first

# Ray's own lets its processes wait for minutes beside other tests, also where a command starts it.
os.environ.setdefault("RAY_worker_niceness", "0")
# Python looks through all that torch and diffusers keep each time that so many objects were made: seldom is enough.
gc.set_threshold(50_000, 20, 20)
atexit.register(gc.freeze)

LEAN = Path(__file__).parent / "support" / "lean"
"""With a sitecustomize.py, which Python imports at its start."""
SLOW_IN_SUITES = frozenset(
    {
        "test_compiled_blocks_give_the_same",
        "test_compiled_blocks_make_no_more_graphs",
        "test_layers_share_one_whole_graph",
        "test_the_probe_answers_where_there_is_no_gpu",
    }
)
"""Tests of the suites for plugin authors that compile, or start an interpreter that imports torch."""
WARNINGS_ON_A_GPU = (
    "ignore::DeprecationWarning",
    "ignore::SyntaxWarning",
    "ignore:Argument .* cannot be converted to a JitArgument:UserWarning",
    "ignore:Warning. Profiler clears events:UserWarning",
    "ignore:inner dimension .* is not aligned:UserWarning",
)
"""What FlashAttention 4, its compiler, torchao, bitsandbytes and torch's profiler say where they run."""


def pytest_configure(config: pytest.Config) -> None:
    """FlexAttention is compiled for seconds, for each kind of call: without a GPU, what asks for `real_flex` has it.

    A process that only hands tests to workers imports no torch.
    """
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        return
    import torch

    from tests.support import dense_tiles

    if not torch.cuda.is_available():
        dense_tiles.stand_in()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them, as the suites themselves are not ours alone to mark; and what takes longest comes first."""
    for item in items:
        if getattr(item, "originalname", None) in SLOW_IN_SUITES:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("gpu"):
            for ignored in WARNINGS_ON_A_GPU:
                item.add_marker(pytest.mark.filterwarnings(ignored))
    items[:] = longest_first(items)


def pytest_collection_finish() -> None:
    """What importing the tests made stays: no collection, of which many tests ask for one, looks through it again."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Plugins of pytest that are imported for the summary may look for what refers to what."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No FASTVIDEO_ variables, no hub, relative paths below the test's own folder."""
    for name in list(os.environ):
        if name.startswith("FASTVIDEO_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read at its import, which has been
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _lean_processes() -> Iterator[None]:
    """Processes that tests start, and theirs, import less."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(LEAN), before)))
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Workers run side by side: more threads each only get in one another's way."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def wan_pipeline() -> Any:
    """A stock WanPipeline with small random weights."""
    from tests.support.models import build_wan_pipeline

    return build_wan_pipeline()


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A backend that attach finds as if it was installed; torch could not trace it: it keeps what it sees in lists."""
    backend = Recorder()
    monkeypatch.setattr("fastvideo_core.engine.attachment.load_plugins", lambda: plugins_with(backend))
    return backend


@pytest.fixture
def mask_reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one whenever a mask is read, which on a GPU is a wait for the device."""
    from fastvideo_core.engine.attention import masks

    reads: list[Any] = []
    reduce_mask = masks.reduce_mask

    def counted(*arguments: Any) -> Any:
        reads.append(arguments)
        return reduce_mask(*arguments)

    monkeypatch.setattr(masks, "reduce_mask", counted)
    return reads


@pytest.fixture
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are forked from a process that has the libraries, which take longer to import than all that follows."""
    from multiprocessing import get_context

    from fastvideo_core.builtin import local_processes

    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.support.together_preload"])
    monkeypatch.setattr(local_processes, "get_context", lambda method: context)


@pytest.fixture(scope="session")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, saved in diffusers format."""
    from tests.support.models import build_wan_pipeline

    folder = tmp_path_factory.mktemp("wan") / "model"
    build_wan_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def real_flex(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel `flex` of fv-sta as users have it."""
    from tests.support import dense_tiles

    monkeypatch.setattr(dense_tiles.flex, "_compiled_flex", dense_tiles.compiled_flex)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A virtual environment of its own that sees what is installed here, for installing plugins into."""
    return build_environment(tmp_path_factory.mktemp("environment"))
