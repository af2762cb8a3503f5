"""What is decided about tiles and rounded weights before anything runs; whole videos are in test_real_checkpoints."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from diffusers import PipelineQuantizationConfig
from diffusers.quantizers.quantization_config import QuantizationMethod
from safetensors.torch import load_file, save_file

from fastvideo_core.app import vae_tiling
from fastvideo_core.app.loading import load_pipeline
from fastvideo_core.app.model_info import ModelInfo, read_model
from fastvideo_core.app.quantization import Quantization, check_quantization
from fastvideo_core.app.vae_tiling import Tiling, check_tiling, decode_bytes
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.engine.quantized import quantized
from fastvideo_core.errors import InputError
from tests.support.families import FAMILIES
from tests.support.models import build_wan_pipeline
from tests.support.models_hunyuan import build_allegro_pipeline


@pytest.fixture
def info(wan_folder: Path) -> ModelInfo:
    return read_model(load_plugins(), wan_folder)


@pytest.mark.parametrize(("share", "tiled"), [(1.1, True), (1.3, False)])
def test_a_fifth_is_added_to_what_tensors_need(share: float, tiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, latents = build_wan_pipeline(), torch.zeros(1, 16, 1, 4, 6)
    room = int(share * decode_bytes(pipe.vae, latents.shape))
    monkeypatch.setattr(vae_tiling, "free_memory", lambda device: room)
    tiling = Tiling(None)
    with tiling.applied(pipe), torch.no_grad():
        pipe.vae.decode(latents)
    assert tiling.used is tiled


@pytest.mark.parametrize(("wanted", "used"), [(None, True), (False, False)])
def test_an_autoencoder_that_tiles_already_does_so_again_afterwards(wanted: bool | None, used: bool) -> None:
    pipe, tiling = build_wan_pipeline(), Tiling(wanted)
    pipe.vae.enable_tiling()
    with tiling.applied(pipe), torch.no_grad():
        assert pipe.vae.use_tiling is used  # also for what is encoded
        pipe.vae.decode(torch.zeros(1, 16, 1, 4, 6))
    assert (tiling.used, pipe.vae.use_tiling) == (used, True)


@pytest.mark.parametrize(("wanted", "used"), [(None, False), (True, True), (False, False)])
def test_what_is_encoded_is_in_tiles_where_they_were_asked_for(wanted: bool | None, used: bool) -> None:
    pipe = build_wan_pipeline()
    with Tiling(wanted).applied(pipe):
        assert pipe.vae.use_tiling is used
    assert pipe.vae.use_tiling is False


def test_allegro_s_autoencoder_which_has_nothing_but_tiles_gets_them(info: ModelInfo) -> None:
    pipe, tiling = build_allegro_pipeline(), Tiling(None)
    pipe.vae = type(pipe.vae).from_config({**pipe.vae.config, "sample_size": 128})
    with tiling.applied(pipe), torch.no_grad():
        frames = pipe.vae.decode(torch.zeros(1, 4, 6, 16, 16)).sample
    assert (tuple(frames.shape), tiling.used) == ((1, 24, 3, 128, 128), True)
    other = replace(info, components={**info.components, "vae": "AutoencoderKLAllegro"})
    with pytest.raises(InputError, match="vae_tiling=False was asked for, but AutoencoderKLAllegro, of"):
        check_tiling(other, False)
    check_tiling(other, None)


def test_rows_of_zeros_stay_zeros_in_fp8(wan_folder: Path, tmp_path: Path) -> None:
    """As those of `shapes` that no channel of its autoencoder needs."""
    shutil.copytree(wan_folder, tmp_path / "model")
    (file,) = (tmp_path / "model" / "transformer").glob("*.safetensors")
    tensors = load_file(file)
    tensors["proj_out.weight"][3] = 0
    save_file(tensors, file, metadata={"format": "pt"})
    pipe = load_pipeline(read_model(load_plugins(), tmp_path / "model"), torch.float32, Quantization("torchao-fp8"))
    assert quantized(pipe)["transformer"] == "torchao Float8Tensor"
    rounded = pipe.transformer.proj_out(torch.eye(pipe.transformer.proj_out.in_features))
    bias, exact = pipe.transformer.proj_out.bias, tensors["proj_out.weight"].T
    assert torch.equal(rounded[:, 3], bias[3].expand(len(rounded)))
    torch.testing.assert_close(rounded, exact + bias, atol=0.05 * float(exact.abs().max()), rtol=0.1)


def test_tiles_that_diffusers_lacks_are_refused(info: ModelInfo) -> None:
    other = replace(info, components={**info.components, "vae": "AutoencoderSAME"})
    with pytest.raises(InputError, match=r"but AutoencoderSAME, of [^,]+, has none in diffusers"):
        check_tiling(other, True)
    check_tiling(other, None)
    check_tiling(info, True)


@pytest.mark.parametrize("of_diffusers", [True, False])
def test_four_bits_are_computed_in_the_dtype_of_the_run(of_diffusers: bool) -> None:
    config = Quantization("bnb-nf4").config_for("transformer", of_diffusers, torch.bfloat16)
    assert (config.load_in_4bit, config.bnb_4bit_quant_type) == (True, "nf4")
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert Quantization("bnb-nf4").config_for("vae", of_diffusers, torch.bfloat16) is None


def test_weights_that_stay_on_the_gpu_are_not_offloaded(info: ModelInfo) -> None:
    with pytest.raises(InputError, match="'bnb-int8' and offloading transformer and text_encoder exclude each other"):
        check_quantization("bnb-int8", info, "cuda", ["transformer", "text_encoder", "vae"])
    assert check_quantization("bnb-int8", info, "cuda:1", ["vae"]) == Quantization("bnb-int8")


def test_hunyuanvideo_s_patches_may_take_several_frames() -> None:
    """As its published configurations do not: they have patches of one frame."""
    config = {"patch_size": 2, "patch_size_t": 2}
    geometry = FAMILIES["HunyuanVideo"].geometry(config, {"temporal_compression_ratio": 4})
    assert (geometry.pixels_per_token, geometry.frames_per_token) == ((16, 16), 8)


@pytest.mark.parametrize(("name", "lacks"), [("torchao-int8", "Int8WeightOnlyConfig"), ("torchao-fp8", None)])
def test_a_torchao_that_lacks_what_is_asked_for_is_named(
    info: ModelInfo, monkeypatch: pytest.MonkeyPatch, name: str, lacks: str | None
) -> None:
    """As earlier ones do: the configuration, or its argument."""
    import torchao.quantization

    if lacks:
        monkeypatch.delattr(torchao.quantization, lacks)
    else:
        monkeypatch.setattr(torchao.quantization, "Float8WeightOnlyConfig", lambda weight_dtype=None: None)
    with pytest.raises(
        InputError, match=f"quantization '{name}' needs another torchao than .*: pip install -U torchao"
    ):
        check_quantization(name, info, "cpu", [])


@pytest.mark.parametrize(
    ("component", "library", "message"),
    [
        ("text_encoder", "diffusers", "diffusers' BitsAndBytesConfig for text_encoder, but .* is of transformers"),
        ("transformer", "transformers", "transformers' BitsAndBytesConfig for transformer, but .* is of diffusers"),
        ("scheduler", "diffusers", "for scheduler, but .* has no weights that could be rounded"),
        ("transformer", "diffusers", "'bnb-nf4' and offloading transformer exclude each other"),
        ("text_encoder", "transformers", None),
    ],
)
def test_a_configuration_is_of_the_library_of_its_part(
    info: ModelInfo, component: str, library: str, message: str | None
) -> None:
    config = import_module(library).BitsAndBytesConfig(load_in_8bit=True)
    asked = PipelineQuantizationConfig(quant_mapping={component: config})
    if message is None:
        assert check_quantization(asked, info, "cuda", ["transformer"]) == Quantization(asked)
        return
    with pytest.raises(InputError, match=message):
        check_quantization(asked, info, "cuda", ["transformer"])


def test_a_part_without_weights_that_are_rounded_is_an_error(info: ModelInfo) -> None:
    """torchao rounds the weights of linear layers, and the autoencoder has convolutions alone."""
    from diffusers import TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    int8 = TorchAoConfig(Int8WeightOnlyConfig(set_inductor_config=False))
    asked = Quantization(PipelineQuantizationConfig(quant_mapping={"vae": int8}))
    told = "quantization is for vae, but TorchAoConfig rounds no weight of AutoencoderKLWan; leave vae out"
    with pytest.raises(InputError, match=told):
        load_pipeline(info, torch.float32, asked)


@pytest.mark.parametrize(("method", "told"), [("quanto", "quanto"), ("torchao", ""), (None, "")])
def test_a_method_whose_weights_are_not_known_is_told_by_its_name(method: str | None, told: str) -> None:
    pipe = build_wan_pipeline()
    if method:
        pipe.transformer.quantization_method = QuantizationMethod(method)
    assert quantized(pipe) == ({"transformer": told} if told else {})
