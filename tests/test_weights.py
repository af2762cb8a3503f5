"""Checkpoints that are not whole are refused by name, and never filled up with random numbers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvideo_core import VideoGenerator
from fastvideo_core.errors import ModelError
from tests.support.models import SIZE, run

SHORT: dict[str, Any] = {**SIZE, "save_video": False}
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def altered(wan_folder: Path, tmp_path: Path) -> Callable[[str, Callable[[Tensors], object]], Path]:
    """Makes a copy of the model in which the tensors of a component are changed."""

    def alter(component: str, change: Callable[[Tensors], object]) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(wan_folder, folder)
        (file,) = (folder / component).glob("*.safetensors")
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, metadata={"format": "pt"})
        return folder

    return alter


COMPONENTS = [
    ("text_encoder", "encoder.block.0.layer.0.SelfAttention.k.weight", "16x16"),
    ("transformer", "blocks.1.attn1.to_q.weight", "32x32"),
    ("vae", "decoder.conv_in.bias", "4"),
]


@pytest.mark.parametrize(("component", "tensor", "shape"), COMPONENTS)
def test_missing_tensors_are_named(altered: Any, component: str, tensor: str, shape: str) -> None:
    folder = altered(component, lambda tensors: tensors.pop(tensor))
    with pytest.raises(ModelError, match=rf"the weights of {component} in '.*' lack 1 tensor \({tensor}\), as"):
        VideoGenerator.from_pretrained(folder)


@pytest.mark.parametrize(("component", "tensor", "shape"), COMPONENTS)
def test_tensors_of_another_shape_are_named(altered: Any, component: str, tensor: str, shape: str) -> None:
    folder = altered(component, lambda tensors: tensors.update({tensor: torch.zeros(3, 5)}))
    message = rf"the weights of {component} in '.*' have 1 tensor \({tensor} is 3x5 instead of {shape}\) of another"
    with pytest.raises(ModelError, match=message):
        VideoGenerator.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_head_dim": 15}, r"no WanTransformer3DModel can be made as '.*config.json' says \(AssertionError"),
        (
            {"attention_head_dim": float("inf")},
            "garbles a number: attention_head_dim is inf, it must be a whole number",
        ),
        ({"num_attention_heads": 0}, "garbles a number: num_attention_heads is 0"),
        ({"patch_size": [0, 0, 0]}, r"garbles a number: its sizes: a token of \(0, 0\) pixels"),
        ({"rope_max_seq_len": "x"}, "garbles a number: '<' not supported"),
        ({"rope_max_seq_len": 0}, "garbles a number: the longest axis has 0 tokens"),
    ],
)
def test_a_configuration_that_means_nothing(
    wan_folder: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    shutil.copytree(wan_folder, tmp_path / "model")
    file = tmp_path / "model" / "transformer" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ModelError, match=message):
        VideoGenerator.from_pretrained(tmp_path / "model", device="cpu")


def test_of_many_some_are_named(altered: Any) -> None:
    folder = altered("transformer", lambda tensors: [tensors.pop(n) for n in list(tensors) if n.startswith("blocks.0")])
    with pytest.raises(ModelError, match=r"lack \d\d tensors \(blocks\.0\.attn1[^,]*(, blocks\.0[^,]*){4}, …\)"):
        VideoGenerator.from_pretrained(folder)


@pytest.mark.parametrize("kept", ["shared.weight", "encoder.embed_tokens.weight"])
def test_a_tensor_that_is_tied_to_one_that_is_there_is_not_missing(altered: Any, wan_folder: Path, kept: str) -> None:
    from diffusers import WanPipeline

    folder = altered("text_encoder", lambda tensors: tensors.update({kept: tensors.pop("shared.weight")}))
    with VideoGenerator.from_pretrained(folder) as generator:
        frames = generator.generate_video("cat", **SHORT, guidance_scale=3.0, seed=7).frames
    assert np.array_equal(frames, run(WanPipeline.from_pretrained(wan_folder)))


@pytest.mark.parametrize("component", ["text_encoder", "transformer", "vae"])
def test_a_file_that_was_cut_off(wan_folder: Path, tmp_path: Path, component: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(wan_folder, folder)
    (file,) = (folder / component).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=rf"cannot be (loaded|read).*model/{component}|{component}.* cannot be read"):
        VideoGenerator.from_pretrained(folder)


def test_the_autoencoder_stays_in_float32(wan_folder: Path) -> None:
    seen = []
    with VideoGenerator.from_pretrained(wan_folder, dtype="bfloat16") as generator:
        parts = generator._pipe.components
        parts["vae"].decoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
        receipt = generator.generate_video("cat", **SHORT).receipt
        assert {tensor.dtype for tensor in parts["vae"].parameters()} == {torch.float32}
        assert {tensor.dtype for tensor in parts["text_encoder"].parameters()} == {torch.bfloat16}
        assert parts["transformer"].blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    assert receipt.dtype == "bfloat16"
    assert set(seen) == {torch.float32}


HUB = """
import sys
from fastvideo_core import VideoGenerator
from fastvideo_core.errors import ModelNotFoundError
with VideoGenerator.from_pretrained("acme/whole") as generator:
    print(generator._pipe.name_or_path, generator.info.location)
try:
    VideoGenerator.from_pretrained("acme/partial")
except ModelNotFoundError as error:
    print(error)
"""


def test_a_model_of_the_hub_is_read_from_its_snapshot(wan_folder: Path, tmp_path: Path) -> None:
    for name in ("whole", "partial"):
        repository = tmp_path / "hub" / f"models--acme--{name}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("0" * 40)
        shutil.copytree(wan_folder, repository / "snapshots" / ("0" * 40))
    for file in (repository / "snapshots").rglob("transformer/*.safetensors"):
        file.unlink()
    variables = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", HUB], env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    whole, partial = done.stdout.strip().splitlines()
    assert whole == "acme/whole acme/whole"
    assert partial.startswith("the model acme/partial cannot be loaded: Error no file named diffusion_pytorch_model")
