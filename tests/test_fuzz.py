"""Whatever is given, the answer is a right result or an error of the project's own, and no file lands elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fv_sta.strategy import read_strategy
from fv_teacache.coefficients import Calibration
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastvideo_core import SamplingParam, VideoGenerator
from fastvideo_core.app.model_info import read_model
from fastvideo_core.app.output import name_for
from fastvideo_core.cli.options import split_settings
from fastvideo_core.contract.settings import declared_settings
from fastvideo_core.discovery.environment import VARIABLES, read_settings
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.engine.caching.choice import choose_policy
from fastvideo_core.errors import FastVideoError

QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TINY: dict[str, Any] = {"height": 16, "width": 16, "num_frames": 1, "num_inference_steps": 1, "guidance_scale": 1.0}

PLUGINS = load_plugins()
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=5))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@contextmanager
def said(what: str = "") -> Iterator[None]:
    """Nothing is raised but an error of the project's own, whose message has this in it."""
    message = what
    try:
        yield
    except FastVideoError as error:
        message = str(error)
    assert what in message


@QUICK
@given(st.dictionaries(st.sampled_from(sorted(VARIABLES)), st.text(max_size=30)))
@example({"FASTVIDEO_ATTENTION_CONFIG": "~0"})
def test_environment_values(environment: dict[str, str]) -> None:
    with said("FASTVIDEO_"):
        read_settings(environment)


@QUICK
@given(
    st.one_of(
        st.text(max_size=40),
        st.tuples(st.sampled_from(PLUGINS.policy_names()), st.text("@:=0123456789.-[]abcx", max_size=20)).map("".join),
    )
)
@example("TEACACHE@" + "9" * 5000)
@example("TEACACHE@[[[[")
@example("TEACACHE@0.1:threshold=0.2")
def test_policies_as_text(asked: str) -> None:
    with said():
        choose_policy(PLUGINS, asked)


BACKENDS = [name for name in PLUGINS.backend_names() if declared_settings(PLUGINS.backend(name)[0])]


@QUICK
@given(
    st.sampled_from(BACKENDS),
    st.lists(st.one_of(VALUES, JSON, st.text("0123456789,.-auto", max_size=8)), min_size=8, max_size=8),
    st.one_of(st.none(), VALUES),
)
@example("SLIDING_TILE_ATTN", ["a\0b", "9" * 5000, (10**400,) * 3, 10**400, [], {}, None, 0], 3)
@example("SLIDING_TILE_ATTN", [None] * 8, "")
def test_settings_of_backends(name: str, values: list[Any], odd: Any) -> None:
    backend = PLUGINS.backend(name)[0]
    named = dict(zip([one.name for one in declared_settings(backend)], values, strict=False))
    for config in ({odd: 1}, *({key: value} for key, value in named.items()), odd):
        with said():
            backend.take_settings(config)
            assert backend.settings_used().keys() == named.keys()


@QUICK
@given(st.lists(st.one_of(st.text(max_size=30), st.text("TEACACHE.threshold=01", max_size=24)), max_size=3))
def test_settings_on_the_command_line(given: list[str]) -> None:
    with said():
        found = split_settings(given, "TORCH_SDPA", "TEACACHE")
        assert len(found) == 2


@QUICK
@given(
    st.dictionaries(st.sampled_from([*SamplingParam.__dataclass_fields__, "heigth", ""]), VALUES, max_size=4),
    st.sampled_from(["shapes"]),
)
@example({"seed": 2**63}, "shapes")
@example({"height": 10**400}, "shapes")
@example({"guidance_scale": float("nan")}, "shapes")
@example({"output_path": "a\0b"}, "shapes")
def test_sampling_parameters(fields: dict[str, Any], model: str) -> None:
    info = read_model(PLUGINS, model)
    with said():
        SamplingParam.from_preset(info.preset).with_overrides(**fields).check(info)


@QUICK
@given(st.text())
def test_file_names_from_prompts(prompt: str) -> None:
    name = name_for(prompt)
    assert name.isascii()
    assert 0 < len(name) <= 60
    assert all(letter.isalnum() or letter in "-_" for letter in name)


@QUICK
@given(content=st.one_of(st.binary(max_size=60), JSON.map(lambda value: json.dumps(value).encode())))
@example(content=b'{"coefficients": [1], "signal": "NONE", "more": 1}')
@example(content=b'{"0_0_0": [1, 1]}')
@example(content=b'{"schema": "fv-sta/1", "windows": [{}]}')
@example(content=b"[" * 100_000)
def test_files_of_settings(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_bytes(content)
    for reader in (Calibration.read, read_strategy):
        with said("settings.json"):
            reader(file)


@pytest.fixture(scope="module")
def generator(wan_folder: Path) -> Iterator[VideoGenerator]:
    with VideoGenerator.from_pretrained(wan_folder) as shared:
        yield shared


@pytest.mark.parametrize(
    "prompt",
    [
        "../../etc/passwd",
        "/tmp/x",
        "a\0b",
        "🦊🐙",
        "x" * 10_000,
        "a\nb\r\t",
        ".hidden",
        "con",
        "..",
        "%s{}$HOME`ls`",
        "\ud800",
    ],
    ids=lambda prompt: ascii(prompt)[:16],
)
def test_prompts_with_odd_characters(generator: VideoGenerator, prompt: str, tmp_path: Path) -> None:
    written: list[Path | None] = []
    with said("prompt"):
        result = generator.generate_video(prompt, output_path=tmp_path / "videos", **TINY)
        written = [result.video_path, result.receipt_path]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(filter(None, written))


@pytest.mark.parametrize("prompt", [None, 3, 2.5, b"cat", {"a": 1}, Path("cat"), [3], [["cat"]]], ids=repr)
def test_what_is_no_prompt(generator: VideoGenerator, prompt: Any, tmp_path: Path) -> None:
    with pytest.raises(FastVideoError, match="prompt"):
        generator.generate_video(prompt, output_path=tmp_path, **TINY)
