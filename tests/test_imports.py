"""Discovery and help are instant because nothing heavy is imported; the public names are what is documented."""

from __future__ import annotations

import gc
import subprocess
import sys
from contextlib import suppress

import pytest

import fastvideo_core
from fastvideo_core.discovery.importing import uncollected

HEAVY = ("torch", "diffusers", "transformers", "av", "PIL", "accelerate", "ray", "pyarrow")


def _imported(code: str) -> set[str]:
    """Top-level modules that are loaded after the code has run in a fresh interpreter."""
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import fastvideo_core",
        "from fastvideo_core import AttentionBackend, ModelPreset, hookimpl, SamplingParam",
        "from fastvideo_core import JsonLines, read_prompts, sampling_options, written_whole",
        "from fastvideo_core.discovery.plugins import load_plugins; load_plugins()",
        "from fastvideo_core.cli import fv; fv.main(['--help'], standalone_mode=False)",
        "from fastvideo_core.cli import fv; fv.main(['plugins', '--json'], standalone_mode=False)",
        "import fastvideo_core.testing.pytest_plugin",
        "from fastvideo_core import SamplingParam; SamplingParam.from_pretrained('shapes')",
        "import fv_serve.app, fv_serve.start, fv_serve.worker; from fastvideo_core import Choices",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    assert not _imported(code) & set(HEAVY)


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_again_after_an_import(collects: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with suppress(ImportError), uncollected():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()


ENDING = """
import atexit, gc, sys
atexit.register(lambda: print("frozen:", gc.get_freeze_count()))  # after what is registered later
sys.argv = ["fv", "--version"]
from fastvideo_core.__main__ import main
main()
"""


def test_the_command_ends_without_a_search_for_garbage() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.rpartition("frozen: ")[2]) > 10_000


@pytest.mark.slow
def test_the_check_itself_sees_torch() -> None:
    assert "torch" in _imported("from fastvideo_core import VideoGenerator")


def test_public_names_are_sorted_and_exist() -> None:
    assert fastvideo_core.__all__ == sorted(fastvideo_core.__all__)
    for name in fastvideo_core.__all__:
        assert getattr(fastvideo_core, name).__doc__ or name == "API_VERSION", name
    assert set(fastvideo_core.__all__) <= set(dir(fastvideo_core))


def test_attach_stays_a_function_after_everything_was_imported() -> None:
    from fastvideo_core import VideoGenerator, attach

    assert VideoGenerator.__module__ == "fastvideo_core.app.generator"
    assert callable(attach)


def test_unknown_names_raise() -> None:
    with pytest.raises(AttributeError, match="no attribute 'VideoGenerater'"):
        _ = fastvideo_core.VideoGenerater
