"""Values that are nothing: each is refused in one line, with the value and what gave it, wherever it is given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fv_firstblock import FirstBlockCache
from fv_magcache import MagCache
from fv_teacache.policy import TeaCache

from fastvideo_core import SamplingParam, VideoGenerator, attach
from fastvideo_core.cli import fv
from fastvideo_core.errors import InputError

SHORT: dict[str, Any] = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 1, "save_video": False}


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    __hash__ = object.__hash__


ODD: list[tuple[Any, str]] = [
    (5, "'5'"),
    (-1, "'-1'"),
    ([1], "'[1]'"),
    ({1}, "'{1}'"),
    (True, "'True'"),
    (b"x", "\"b'x'\""),
    (np.array([1.0, 2.0]), "'[1. 2.]'"),
    (np.zeros((2, 2)), "'[[0. 0.] [0. 0.]]'"),
    (Unprintable(), "'a Unprintable whose text raises RuntimeError'"),
    ("x" * 5000, f"'{'x' * 200}…'"),
]
"""Values, and how messages show them."""

odd = pytest.mark.parametrize(("value", "shown"), ODD, ids=[shown[:12] for _, shown in ODD])


@pytest.fixture(scope="module")
def generator(wan_folder: Path) -> Iterator[VideoGenerator]:
    with VideoGenerator.from_pretrained(wan_folder, device="cpu") as shared:
        yield shared


@odd
def test_a_configuration_that_nothing_was_asked_for(generator: VideoGenerator, value: Any, shown: str) -> None:
    expected = f"cache_config= gives {shown}, but no caching policy was asked for that it could be for: set cache= or"
    with pytest.raises(InputError, match=re.escape(expected)):
        generator.generate_video("cat", cache_config=value, **SHORT)
    expected = f"attention_config= gives {shown}, but no attention backend was asked for that it could be for: set att"
    with pytest.raises(InputError, match=re.escape(expected)):
        VideoGenerator.from_pretrained("shapes", attention_config=value)


@odd
def test_a_configuration_that_does_not_fit(generator: VideoGenerator, value: Any, shown: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"attention_config= is {shown}: ")):
        VideoGenerator.from_pretrained("shapes", attention_backend="SLIDING_TILE_ATTN", attention_config=value)
    expected = f"attention_config= gives {shown}, but TORCH_SDPA has no main setting to give it to; it has nothing to"
    with pytest.raises(InputError, match=re.escape(expected)):
        VideoGenerator.from_pretrained("shapes", attention_backend="TORCH_SDPA", attention_config=value)
    if shown != "'5'":  # which is a threshold
        with pytest.raises(InputError, match=re.escape(f"cache_config= is {shown}: input should be ")):
            generator.generate_video("cat", cache="FIRSTBLOCK", cache_config=value, **SHORT)
    with pytest.raises(InputError, match=re.escape(f"cache_config= gives {shown}, but cache= is an object, which")):
        generator.generate_video("cat", cache=FirstBlockCache(0.1), cache_config=value, **SHORT)


@odd
def test_a_value_of_one_setting(wan_pipeline: Any, value: Any, shown: str) -> None:
    refused_by = {
        "max_skips": shown != "'5'",
        "use_ret_steps": value is not True,
        "coefficients": not isinstance(value, str | list | np.ndarray),  # names, files and numbers
    }
    for name in (name for name, refused in refused_by.items() if refused):
        with pytest.raises(InputError, match=re.escape(f"TEACACHE: {name} is {shown}: ")):
            TeaCache(**{name: value})
        with pytest.raises(InputError, match=re.escape(f"cache_config['{name}'] is {shown}: ")):
            attach(wan_pipeline, cache="TEACACHE", cache_config={name: value})


@pytest.mark.parametrize("value", [5, {"a": 1}, [{}], Unprintable()])
def test_a_parser_that_expects_something_else(value: Any) -> None:
    with pytest.raises(InputError, match=r"ratios is .*it sets ratios"):
        MagCache(ratios=value)


@pytest.mark.parametrize("key", [5, None, Unprintable(), b"threshold", ("threshold",)])
def test_a_name_that_is_no_text(wan_pipeline: Any, key: Any) -> None:
    with pytest.raises(InputError, match=r"FIRSTBLOCK has no setting .*; it has threshold, branches_decide_together"):
        attach(wan_pipeline, cache="FIRSTBLOCK", cache_config={key: 1})


@odd
def test_a_name_of_a_backend_or_a_policy(generator: VideoGenerator, value: Any, shown: str) -> None:
    if isinstance(value, str):
        return
    found = f"name or object, not {shown}, of type {type(value).__name__}"
    with pytest.raises(InputError, match=re.escape(f"cache= takes a policy's {found}")):
        generator.generate_video("cat", cache=value, **SHORT)
    with pytest.raises(InputError, match=re.escape(f"cache={shown} for something else")):
        generator.generate_video("cat", cache=value, enable_teacache=True, **SHORT)
    with pytest.raises(InputError, match=re.escape(f"attention_backend= takes a backend's {found}")):
        VideoGenerator.from_pretrained("shapes", attention_backend=value)


@pytest.mark.parametrize("value", [{"num_frames": 9}, {}, 5, "fast", [], SamplingParam])
def test_sampling_parameters_of_another_type(generator: VideoGenerator, value: Any) -> None:
    with pytest.raises(InputError, match=r"sampling_param must be a SamplingParam, not .*generate_video\(…, num_fr"):
        generator.generate_video("cat", value)
    with pytest.raises(InputError, match=r"sampling_param must be a SamplingParam, not "):
        generator.generate_videos(["cat"], value)


@pytest.mark.parametrize("blank", ["", "  ", None, {}])
def test_nothing_is_nothing(generator: VideoGenerator, blank: Any) -> None:
    receipt = generator.generate_video("cat", cache="FIRSTBLOCK", cache_config=blank, **SHORT).receipt
    assert receipt.cache is not None
    assert receipt.cache.origins == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cache", "@0.1"], "cache='@0.1' names nothing in front of the @; write NAME@VALUE, such as TEACACHE@0.08"),
        (["--attention-backend", "@x"], "='@x' names nothing in front of the @; write NAME@VALUE, such as SLIDING_"),
        (["--cache", "TEACACHE@=1"], "cache='TEACACHE@=1' is none of NAME, NAME@VALUE and"),
        (["--cache", "TEACACHE@coefficients=C:/x"], "a value that holds a colon is given by --set NAME.SETTING=VALUE"),
        (["--cache", "none@0.1"], "cache='none@0.1' gives '0.1', but no caching policy was asked for that"),
        (["--attention-config", "x"], "--attention-config gives 'x', but no attention backend was asked for"),
        (["--attention-backend", "TORCH_SDPA", "--attention-config", "x"], "TORCH_SDPA has no main setting to give it"),
        (
            ["--attention-backend", "SLIDING_TILE_ATTN", "--attention-config", "x"],
            "--attention-config is 'x': the file",
        ),
        (
            ["--attention-backend", "SLIDING_TILE_ATTN", "--attention-config", "\udcff"],
            "--attention-config is '\\udcff': 'utf-8' codec|--attention-config is '\\udcff', which is no text",
        ),
        (["--cache", "TEACACHE", "--set", "TEACACHE. THRESHOLD =1"], "no setting 'THRESHOLD'; did you mean threshold?"),
        (["--cache", "TEACACHE", "--set", "TEACACHE.max_skips="], "--set TEACACHE.max_skips is '': input should be"),
        (["--cache", "TEACACHE", "--set", "TEACACHE.=1"], "--set 'TEACACHE.=1' is not NAME.KEY=VALUE"),
    ],
)
def test_the_command_line(options: list[str], message: str) -> None:
    done = CliRunner().invoke(fv, ["generate", "cat", "--model", "shapes", *options])
    assert done.exit_code == 1
    assert any(part in done.stderr for part in message.split("|")), done.stderr
    assert "GivenValue" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("FASTVIDEO_CACHE_POLICY", "@0.1", "FASTVIDEO_CACHE_POLICY='@0.1' names nothing in front of the @"),
        ("FASTVIDEO_CACHE_POLICY", "none@1", "set cache= or FASTVIDEO_CACHE_POLICY"),
        ("FASTVIDEO_ATTENTION_BACKEND", "@x", "FASTVIDEO_ATTENTION_BACKEND='@x' names nothing in front of the @"),
        ("FASTVIDEO_ATTENTION_CONFIG", "x", "FASTVIDEO_ATTENTION_CONFIG gives 'x', but no attention backend was asked"),
    ],
)
def test_a_variable(
    wan_pipeline: Any, variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=re.escape(message)):
        attach(wan_pipeline)
