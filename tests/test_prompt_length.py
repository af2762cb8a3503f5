"""A prompt that is longer than what the text encoder reads is refused: diffusers would cut off its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core import SamplingParam, VideoGenerator
from fastvideo_core.app.prompts import check_lengths
from fastvideo_core.errors import InputError
from tests.support.models import SIZE
from tests.support.policies import PIPELINES


def words(count: int, last: str) -> str:
    return " ".join(["cat"] * (count - 1) + [last])


@pytest.mark.parametrize(
    ("kind", "most"), [("Wan 2.1", 512), ("LTX-Video", 128), ("CogVideoX", 226), ("Mochi", 256), ("HunyuanVideo", 256)]
)
def test_as_many_tokens_as_the_pipeline_reads(kind: str, most: int) -> None:
    """What it reads shows in its embeddings; HunyuanVideo's begin behind a template that a tiny tokenizer lacks."""
    pipe = PIPELINES[kind][0]()
    check_lengths(pipe, prompt=[words(most, "cat")], negative_prompt=[""])
    with pytest.raises(
        InputError, match=rf"{most + 1} tokens long, \w+Pipeline reads {most}: .* end, '.*dog'; shorten"
    ):
        check_lengths(pipe, prompt=["cat", words(most + 1, "dog")])
    if kind == "HunyuanVideo":
        return
    for count, seen in ((most, True), (most + 1, False)):
        ends = [embedded(pipe, words(count, last), most) for last in ("cat", "dog")]
        assert torch.equal(*ends) != seen


def embedded(pipe: Any, prompt: str, most: int) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = pipe.encode_prompt(prompt, None, False, max_sequence_length=most)[0]
    return found


def test_it_is_refused_before_the_first_video(wan_folder: Path) -> None:
    with VideoGenerator.from_pretrained(wan_folder, device="cpu") as generator:
        for prompt, negative_prompt in ((["cat", words(513, "dog")], ""), (["cat"], words(513, "dog"))):
            with pytest.raises(InputError, match="is 513 tokens long, WanPipeline reads 512"):
                generator.generate_video(prompt, SamplingParam(negative_prompt=negative_prompt).with_overrides(**SIZE))
    assert not list(Path.cwd().iterdir())
