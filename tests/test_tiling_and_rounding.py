"""What is decided about tiles and rounded weights before anything runs; whole videos are in test_real_checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastvideo_core.app import vae_tiling
from fastvideo_core.app.model_info import ModelInfo, read_model
from fastvideo_core.app.quantization import Quantization, check_quantization
from fastvideo_core.app.vae_tiling import Tiling, check_tiling, decode_bytes
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.errors import InputError
from tests.support.families import FAMILIES
from tests.support.models import build_wan_pipeline


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
