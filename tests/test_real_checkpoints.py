"""Models as they are published: several files, variants, the hub's cache; rounded weights; decoding in tiles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastvideo_core import VideoGenerator, attach
from fastvideo_core.app import vae_tiling
from fastvideo_core.app.component_files import variant_of
from fastvideo_core.app.loading import load_pipeline, place_pipeline
from fastvideo_core.app.model_info import read_model
from fastvideo_core.app.quantization import Quantization
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.errors import InputError, ModelError
from tests.support.models import SIZE, build_wan_pipeline, run

SHORT: dict[str, Any] = {**SIZE, "guidance_scale": 3.0, "seed": 7, "save_video": False}


@pytest.fixture(scope="module")
def bare() -> Any:
    return run(build_wan_pipeline())


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every part's weights in several files, with an index."""
    folder = tmp_path_factory.mktemp("sharded") / "model"
    build_wan_pipeline().save_pretrained(folder, max_shard_size="40KB")
    return folder


def frames_of(model: str | Path, **options: Any) -> Any:
    with VideoGenerator.from_pretrained(model, **options) as generator:
        return generator.generate_video("cat", **SHORT).frames


def check_frames(model: Path, found: Any, in_one: Any, variant: str | None = None) -> None:
    """Those of bare diffusers from the same files, bit for bit: where a weight lies in its file may round otherwise."""
    from diffusers import WanPipeline

    assert np.array_equal(found, run(WanPipeline.from_pretrained(model, variant=variant)))
    np.testing.assert_allclose(found, in_one, rtol=0, atol=1e-5)


def test_weights_in_several_files(sharded: Path, bare: Any) -> None:
    index = json.loads((sharded / "transformer" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    check_frames(sharded, frames_of(sharded), bare)


def test_a_file_of_several_that_is_missing_is_named(sharded: Path, tmp_path: Path) -> None:
    shutil.copytree(sharded, tmp_path / "model")
    gone = sorted((tmp_path / "model" / "transformer").glob("*-of-*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(ModelError, match=gone.name):
        VideoGenerator.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("shards", [None, "40KB"])
def test_a_folder_of_variants_alone(shards: str | None, bare: Any, tmp_path: Path) -> None:
    """As checkpoints have them which publish half-precision weights only."""
    build_wan_pipeline().save_pretrained(
        tmp_path / "model", variant="fp16", **({"max_shard_size": shards} if shards else {})
    )
    assert [*(tmp_path / "model" / "transformer").glob("*.fp16*.safetensors")]
    check_frames(tmp_path / "model", frames_of(tmp_path / "model"), bare, variant="fp16")


def test_plain_weights_come_before_variants(bare: Any, tmp_path: Path) -> None:
    build_wan_pipeline(seed=3).save_pretrained(tmp_path / "model", variant="fp16")
    build_wan_pipeline().save_pretrained(tmp_path / "model")
    check_frames(tmp_path / "model", frames_of(tmp_path / "model"), bare)


@pytest.mark.parametrize(("dtype", "chosen"), [("bfloat16", "bf16"), ("float16", "fp16"), ("float32", "bf16")])
def test_of_several_variants_that_of_the_dtype_is_taken(dtype: str, chosen: str, tmp_path: Path) -> None:
    for name in ("model.fp16-00001-of-00002", "model.fp16-00002-of-00002", "model.bf16"):
        (tmp_path / f"{name}.safetensors").touch()
    assert variant_of(tmp_path, dtype) == chosen
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    assert variant_of(tmp_path, dtype) is None


@pytest.fixture
def cached(sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model in a cache of the hub's client: content in blobs, names in a snapshot, the revision in refs."""
    revision, home = "0" * 40, tmp_path / "hub" / "models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers"
    snapshot = home / "snapshots" / revision
    (home / "blobs").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(revision)
    for number, file in enumerate(sorted(one for one in sharded.rglob("*") if one.is_file())):
        shutil.copy(file, home / "blobs" / f"{number:040x}")
        link = snapshot / file.relative_to(sharded)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(home / "blobs" / f"{number:040x}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


def test_a_hub_s_cache_by_name_and_by_folder(cached: Path, bare: Any) -> None:
    name = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    for model in (name, cached):
        with VideoGenerator.from_pretrained(model) as generator:
            result = generator.generate_video("cat", **{**SHORT, "negative_prompt": "", "flow_shift": 3.0})
            check_frames(cached, result.frames, bare)
            with pytest.warns(UserWarning, match="threshold 0.0 is outside what was published"):
                generator.generate_video("cat", **SHORT, cache="TEACACHE@0.0")  # it knows the checkpoint by its name
    assert result.receipt.flow_shift == 3.0


@pytest.fixture(scope="module")
def quantized(wan_folder: Path) -> dict[str, Any]:
    """Results by the short name."""
    found = {}
    for name in ("torchao-int8", "torchao-fp8", "fp8-layerwise"):
        with VideoGenerator.from_pretrained(wan_folder, quantization=name) as generator:
            found[name] = generator.generate_video("cat", **SHORT)
    return found


def test_rounded_weights_are_in_the_receipt_and_change_the_frames(quantized: dict[str, Any], bare: Any) -> None:
    kinds = {
        "torchao-int8": {"text_encoder": "torchao Int8Tensor", "transformer": "torchao Int8Tensor"},
        "torchao-fp8": {"text_encoder": "torchao Float8Tensor", "transformer": "torchao Float8Tensor"},
        "fp8-layerwise": {"transformer": "FP8, cast layer by layer"},
    }
    for name, result in quantized.items():
        assert result.receipt.quantization == kinds[name]
        assert result.receipt.dtype == "float32"
        assert not np.array_equal(result.frames, bare)
        np.testing.assert_allclose(result.frames, bare, atol=0.1)
        assert list(result.receipt.attention) == ["SELF", "CROSS"]


@pytest.mark.parametrize("name", ["torchao-int8", "torchao-fp8"])
def test_rounding_leaves_the_compiler_as_it_is(wan_folder: Path, name: str) -> None:
    from torch._inductor import config

    before = config.get_config_copy()
    with config.patch(coordinate_descent_tuning=False), VideoGenerator.from_pretrained(wan_folder, quantization=name):
        assert not config.coordinate_descent_tuning
    assert config.get_config_copy() == before


def test_rounded_weights_are_those_of_diffusers(quantized: dict[str, Any], wan_folder: Path) -> None:
    from diffusers import TorchAoConfig, WanPipeline, WanTransformer3DModel
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig as OfTransformers
    from transformers import UMT5EncoderModel

    transformer = WanTransformer3DModel.from_pretrained(
        wan_folder / "transformer",
        torch_dtype=torch.float32,
        quantization_config=TorchAoConfig(Int8WeightOnlyConfig()),
    )
    text = UMT5EncoderModel.from_pretrained(
        wan_folder / "text_encoder",
        dtype=torch.float32,
        quantization_config=OfTransformers(Int8WeightOnlyConfig()),
    )
    pipe = WanPipeline.from_pretrained(wan_folder, transformer=transformer, text_encoder=text)
    assert np.array_equal(run(pipe), quantized["torchao-int8"].frames)
    pipe = WanPipeline.from_pretrained(wan_folder)
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        assert np.array_equal(run(pipe), quantized["fp8-layerwise"].frames)
        assert fv.receipt.quantization == {"transformer": "FP8, cast layer by layer"}


def test_diffusers_own_configuration_is_taken(wan_folder: Path, quantized: dict[str, Any], bare: Any) -> None:
    from diffusers import PipelineQuantizationConfig, TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    config = PipelineQuantizationConfig(quant_mapping={"transformer": TorchAoConfig(Int8WeightOnlyConfig())})
    with VideoGenerator.from_pretrained(wan_folder, quantization=config) as generator:
        result = generator.generate_video("cat", **SHORT)
    assert result.receipt.quantization == {"transformer": "torchao Int8Tensor"}
    assert not np.array_equal(result.frames, bare)


@pytest.mark.parametrize("name", ["torchao-int8", "torchao-fp8", "fp8-layerwise"])
def test_rounded_weights_can_be_offloaded(name: str, wan_folder: Path, quantized: dict[str, Any]) -> None:
    """By the hooks that offload on a GPU; here from a CPU's memory to itself."""
    info = read_model(load_plugins(), wan_folder)
    pipe = load_pipeline(info, torch.float32, Quantization(name))
    place_pipeline(pipe, "cpu", ["transformer", "text_encoder", "vae"], pin_cpu_memory=False)
    with attach(pipe) as fv:
        assert np.array_equal(run(pipe), quantized[name].frames)
    assert fv.receipt.quantization == quantized[name].receipt.quantization


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "fp8"}, "quantization 'fp8' is none of fp8-layerwise, torchao-fp8, .*PipelineQuantization"),
        ({"quantization": "gguf"}, r"GGUF weights come as a file of their own.*from_single_file.*attach\(\)"),
        (
            {"quantization": "bnb-nf4"},
            "'bnb-nf4' was asked for on 'cpu': diffusers quantizes with bitsandbytes on CUDA",
        ),
        ({"quantization": 8}, "quantization is '8'; it must be one of"),
        ({"quantization": "fp8-layerwise", "compile": True}, "compile and quantization 'fp8-layerwise' exclude each"),
        ({"quantization": " FP8_Layerwise", "compile": True}, "compile and quantization 'fp8-layerwise' exclude each"),
        ({"quantization": "FP8"}, "quantization 'FP8' is none of fp8-layerwise"),
        ({"vae_tiling": "yes"}, "vae_tiling is 'yes', it must be True or False"),
    ],
)
def test_what_cannot_be_rounded_is_refused_before_loading(
    wan_folder: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("fastvideo_core.app.opening.load_pipeline", lambda *args: pytest.fail("loaded"))
    with pytest.raises(InputError, match=message):
        VideoGenerator.from_pretrained(wan_folder, device="cpu", **options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quant_backend": "bitsandbytes_4bit", "quant_kwargs": {"load_in_4bit": True}}, "on CUDA alone"),
        ({"quant_mapping": {"transfomer": None}}, "quantization is for transfomer, but .* has scheduler, text_encoder"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(wan_folder: Path, given: dict[str, Any], message: str) -> None:
    from diffusers import PipelineQuantizationConfig, TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    if "quant_mapping" in given:
        given = {"quant_mapping": dict.fromkeys(given["quant_mapping"], TorchAoConfig(Int8WeightOnlyConfig()))}
    config = PipelineQuantizationConfig(**given)
    with pytest.raises(InputError, match=message):
        VideoGenerator.from_pretrained(wan_folder, quantization=config)


LARGE: dict[str, Any] = {**SHORT, "height": 272, "width": 32, "num_frames": 1, "num_inference_steps": 2}
"""Beyond 256 pixels a side, from where diffusers' tiles of Wan's autoencoder are several."""


@pytest.fixture(scope="module")
def tiles(wan_folder: Path) -> dict[bool, Any]:
    """Frames of bare diffusers, in tiles and not."""
    from diffusers import WanPipeline

    found = {}
    size = {name: LARGE[name] for name in ("height", "width", "num_frames", "num_inference_steps")}
    for tiled in (False, True):
        pipe = WanPipeline.from_pretrained(wan_folder)
        if tiled:
            pipe.vae.enable_tiling()
        found[tiled] = run(pipe, **size)
    return found


@pytest.mark.parametrize(
    ("wanted", "room", "tiled"),
    [(True, None, True), (False, 1, False), (None, None, False), (None, 10**15, False), (None, 1, True)],
)
def test_tiles_are_used_when_asked_for_or_where_it_would_not_fit(
    wan_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiles: dict[bool, Any],
    wanted: bool | None,
    room: int | None,
    tiled: bool,
) -> None:
    monkeypatch.setattr("fastvideo_core.app.vae_tiling.free_memory", lambda device: room)
    with VideoGenerator.from_pretrained(wan_folder, vae_tiling=wanted) as generator:
        for _ in range(1 + (room == 1)):
            result = generator.generate_video("cat", **LARGE)
            assert result.receipt.vae_tiling is tiled
            assert np.array_equal(result.frames, tiles[tiled])
        assert not np.array_equal(tiles[True], tiles[False])
        assert generator._pipe is not None
        assert generator._pipe.vae.use_tiling is False
        assert "decode" not in vars(generator._pipe.vae)


def test_bytes_that_are_alive_are_those_that_torch_counts() -> None:
    """Torch's profiler tells of every allocation; layers that work beside their tensors are left out."""
    layers = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 32), torch.nn.Tanh())

    def decode() -> Any:
        kept = layers(torch.ones(512, 64))
        return torch.cat([layers(torch.ones(512, 64)) + 1, kept, kept.view(-1, 32)])

    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profile:
        decode()
    live = most = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda one: one.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            most = max(most, live)
    assert most > 0
    assert vae_tiling._peak(decode) == pytest.approx(most, rel=0.02)


def test_no_decode_needs_more_than_what_nothing_is_estimated_below() -> None:
    vae = build_wan_pipeline().vae
    for frames, height, width in ((1, 4, 6), (3, 6, 4)):
        latents = torch.zeros(1, 16, frames, height, width)
        assert vae_tiling._bound(vae, latents) > vae_tiling.decode_bytes(vae, latents.shape)


def test_longer_videos_are_extrapolated(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, shape = build_wan_pipeline().vae, (1, 16, 17, 2, 2)
    monkeypatch.setattr(vae_tiling, "_SHORT", 9)
    monkeypatch.setattr(vae_tiling, "_LONG", 13)
    extrapolated = vae_tiling.decode_bytes(vae, shape)
    monkeypatch.setattr(vae_tiling, "_LONG", 17)
    assert extrapolated == pytest.approx(vae_tiling.decode_bytes(vae, shape), rel=0.05)


def test_the_command_takes_them(wan_folder: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from fastvideo_core.cli import fv

    size = ["--height", "32", "--width", "48", "--frames", "5", "--steps", "2", "--output", str(tmp_path)]
    more = ["--quantization", "TORCHAO_INT8", "--vae-tiling", "--dit-cpu-offload", "--device", "cpu"]
    with pytest.warns(UserWarning, match="offloading transformer does nothing"):
        done = CliRunner().invoke(fv, ["generate", "cat", "--model", str(wan_folder), *size, *more])
    assert "weights  transformer: torchao Int8Tensor, not exact" in done.output
    receipt = json.loads((tmp_path / "cat.json").read_text())
    assert receipt["vae_tiling"] is True
