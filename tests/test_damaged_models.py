"""Models with a file that is damaged or gone: one line, with the name of the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import fv_shapes
import pytest

from fastvideo_core import VideoGenerator
from fastvideo_core.errors import ModelError

MODEL = Path(fv_shapes.__file__).parent / "model"

FILES = [
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "transformer/config.json",
    "vae/config.json",
    "model_index.json",
]


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "cut": _cut,
    "a list": lambda file: file.write_text("[1]"),
    "no text": lambda file: file.write_bytes(b"\xff\xfe\x00\x80" * 50),
    "a folder": _folder,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path_factory.mktemp("damaged") / "model"))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_the_file_is_named(model: Path, name: str, damage: str) -> None:
    if (name, damage) == ("tokenizer/tokenizer_config.json", "gone"):
        pytest.skip("a tokenizer does without")
    file = model / name
    DAMAGES[damage](file)
    try:
        with pytest.raises(ModelError) as refused:
            VideoGenerator.from_pretrained(model, device="cpu")
    finally:
        if file.is_dir():
            file.rmdir()
        shutil.copy(MODEL / name, file)
    message = str(refused.value)
    assert file.name in message
    assert file.parent.name in message
    assert "\n" not in message


def test_a_tokenizer_of_another_kind(model: Path) -> None:
    """JSON that no tokenizer can be made of."""
    file = model / "tokenizer" / "tokenizer.json"
    file.write_text('{"model": 5}')
    try:
        with pytest.raises(ModelError, match=r"cannot be loaded: .*; get the model again") as refused:
            VideoGenerator.from_pretrained(model, device="cpu")
    finally:
        shutil.copy(MODEL / "tokenizer" / "tokenizer.json", file)
    assert "\n" not in str(refused.value)
