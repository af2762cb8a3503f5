"""The presets of the core are what model cards and diffusers' examples say; `fv models` shows them."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
from click.testing import CliRunner
from configurations import MODELS

from fastvideo_core import ModelPreset, SamplingParam
from fastvideo_core.app.inputs import PipelineInputs
from fastvideo_core.app.model_list import listed_models
from fastvideo_core.cli import fv
from tests.support.backends import core_alone, plugins_with
from tests.support.families import FAMILIES
from tests.support.models import build_wan_pipeline

PRESETS = {preset.name: preset for plugin in core_alone().loaded for preset in plugin.presets}

SKYREELS = "Skywork/SkyReels-V2-{}P-Diffusers"
FORCING = "SkyReelsV2DiffusionForcingPipeline"
HUNYUAN = "hunyuanvideo-community/HunyuanVideo"
NEWER = f"{HUNYUAN}-1.5-Diffusers-"
KANDINSKY = "kandinskylab/Kandinsky-5.0-{}-5s-Diffusers"
COSMOS = "nvidia/Cosmos-1.0-Diffusion-{}"

PUBLISHED: dict[str, tuple[str, tuple[int, int, int, int, int], float]] = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": ("WanPipeline", (480, 832, 81, 16, 50), 5.0),
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": ("WanPipeline", (720, 1280, 81, 16, 50), 5.0),
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": ("WanImageToVideoPipeline", (480, 832, 81, 16, 50), 5.0),
    "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers": ("WanImageToVideoPipeline", (720, 1280, 81, 16, 50), 5.0),
    "Wan-AI/Wan2.1-VACE-1.3B-diffusers": ("WanVACEPipeline", (480, 832, 81, 16, 30), 5.0),
    "Wan-AI/Wan2.1-VACE-14B-diffusers": ("WanVACEPipeline", (720, 1280, 81, 16, 30), 5.0),
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": ("WanPipeline", (720, 1280, 81, 16, 40), 4.0),
    "Wan-AI/Wan2.2-I2V-A14B-Diffusers": ("WanImageToVideoPipeline", (480, 832, 81, 16, 40), 3.5),
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": ("WanPipeline", (704, 1280, 121, 24, 50), 5.0),
    SKYREELS.format("DF-1.3B-540"): (FORCING, (544, 960, 97, 24, 30), 6.0),
    SKYREELS.format("DF-14B-540"): (FORCING, (544, 960, 97, 24, 30), 6.0),
    SKYREELS.format("DF-14B-720"): (FORCING, (720, 1280, 97, 24, 30), 6.0),
    SKYREELS.format("T2V-14B-540"): ("SkyReelsV2Pipeline", (544, 960, 97, 24, 50), 6.0),
    SKYREELS.format("T2V-14B-720"): ("SkyReelsV2Pipeline", (720, 1280, 121, 24, 50), 6.0),
    SKYREELS.format("I2V-1.3B-540"): ("SkyReelsV2ImageToVideoPipeline", (544, 960, 97, 24, 50), 5.0),
    SKYREELS.format("I2V-14B-540"): ("SkyReelsV2ImageToVideoPipeline", (544, 960, 97, 24, 50), 5.0),
    SKYREELS.format("I2V-14B-720"): ("SkyReelsV2ImageToVideoPipeline", (720, 1280, 121, 24, 50), 5.0),
    HUNYUAN: ("HunyuanVideoPipeline", (720, 1280, 129, 24, 50), 6.0),
    f"{HUNYUAN}-I2V": ("HunyuanVideoImageToVideoPipeline", (720, 1280, 129, 15, 50), 6.0),
    f"{HUNYUAN}-I2V-33ch": ("HunyuanVideoImageToVideoPipeline", (720, 1280, 129, 15, 50), 1.0),
    f"{NEWER}480p_t2v": ("HunyuanVideo15Pipeline", (480, 848, 121, 24, 50), 6.0),
    f"{NEWER}720p_t2v": ("HunyuanVideo15Pipeline", (720, 1280, 121, 24, 50), 6.0),
    f"{NEWER}480p_i2v": ("HunyuanVideo15ImageToVideoPipeline", (480, 848, 121, 24, 50), 6.0),
    f"{NEWER}720p_i2v": ("HunyuanVideo15ImageToVideoPipeline", (720, 1280, 121, 24, 50), 6.0),
    f"{NEWER}480p_t2v_distilled": ("HunyuanVideo15Pipeline", (480, 848, 121, 24, 50), 1.0),
    f"{NEWER}480p_i2v_distilled": ("HunyuanVideo15ImageToVideoPipeline", (480, 848, 121, 24, 50), 1.0),
    f"{NEWER}720p_i2v_distilled": ("HunyuanVideo15ImageToVideoPipeline", (720, 1280, 121, 24, 50), 1.0),
    "Lightricks/LTX-Video": ("LTXPipeline", (480, 704, 161, 24, 50), 3.0),
    "Lightricks/LTX-Video-0.9.5": ("LTXConditionPipeline", (512, 768, 161, 24, 40), 3.0),
    "Lightricks/LTX-Video-0.9.7-dev": ("LTXConditionPipeline", (512, 768, 161, 24, 30), 5.0),
    "Lightricks/LTX-Video-0.9.7-distilled": ("LTXConditionPipeline", (512, 768, 161, 24, 8), 1.0),
    "Lightricks/LTX-Video-0.9.8-13B-distilled": ("LTXConditionPipeline", (512, 768, 161, 24, 8), 1.0),
    "Lightricks/LTX-2": ("LTX2Pipeline", (512, 768, 121, 24, 30), 3.0),
    "THUDM/CogVideoX-2b": ("CogVideoXPipeline", (480, 720, 49, 8, 50), 6.0),
    "THUDM/CogVideoX-5b": ("CogVideoXPipeline", (480, 720, 49, 8, 50), 6.0),
    "THUDM/CogVideoX-5b-I2V": ("CogVideoXImageToVideoPipeline", (480, 720, 49, 8, 50), 6.0),
    "THUDM/CogVideoX1.5-5B": ("CogVideoXPipeline", (768, 1360, 81, 16, 50), 6.0),
    "THUDM/CogVideoX1.5-5B-I2V": ("CogVideoXImageToVideoPipeline", (768, 1360, 81, 16, 50), 6.0),
    "genmo/mochi-1-preview": ("MochiPipeline", (480, 848, 85, 30, 64), 4.5),
    KANDINSKY.format("T2V-Lite-sft"): ("Kandinsky5T2VPipeline", (512, 768, 121, 24, 50), 5.0),
    KANDINSKY.format("T2V-Lite-pretrain"): ("Kandinsky5T2VPipeline", (512, 768, 121, 24, 50), 5.0),
    KANDINSKY.format("T2V-Lite-nocfg"): ("Kandinsky5T2VPipeline", (512, 768, 121, 24, 50), 1.0),
    KANDINSKY.format("T2V-Lite-distilled16steps"): ("Kandinsky5T2VPipeline", (512, 768, 121, 24, 16), 1.0),
    KANDINSKY.format("T2V-Pro-sft"): ("Kandinsky5T2VPipeline", (768, 1024, 121, 24, 50), 5.0),
    KANDINSKY.format("I2V-Pro-sft"): ("Kandinsky5I2VPipeline", (512, 768, 121, 24, 50), 5.0),
    COSMOS.format("7B-Text2World"): ("CosmosTextToWorldPipeline", (704, 1280, 121, 30, 36), 7.0),
    COSMOS.format("14B-Text2World"): ("CosmosTextToWorldPipeline", (704, 1280, 121, 30, 36), 7.0),
    COSMOS.format("7B-Video2World"): ("CosmosVideoToWorldPipeline", (704, 1280, 121, 30, 36), 7.0),
    COSMOS.format("14B-Video2World"): ("CosmosVideoToWorldPipeline", (704, 1280, 121, 30, 36), 7.0),
    "nvidia/Cosmos-Predict2-2B-Video2World": ("Cosmos2VideoToWorldPipeline", (704, 1280, 93, 16, 35), 7.0),
    "nvidia/Cosmos-Predict2-14B-Video2World": ("Cosmos2VideoToWorldPipeline", (704, 1280, 93, 16, 35), 7.0),
    "nvidia/ChronoEdit-14B-Diffusers": ("ChronoEditPipeline", (720, 1280, 5, 16, 50), 5.0),
    "BestWishYsh/Helios-Base": ("HeliosPipeline", (384, 640, 129, 24, 50), 5.0),
}
"""Pipeline; height, width, frames, frame rate and steps; guidance: of model cards, or of diffusers' documentation."""


def test_every_preset_of_the_core_is_held() -> None:
    assert PRESETS.keys() == PUBLISHED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_those_of_model_cards_and_documentation(name: str) -> None:
    pipeline, (height, width, frames, fps, steps), guidance = PUBLISHED[name]
    params = SamplingParam.from_pretrained(name)
    assert (params.height, params.width, params.num_frames, params.fps) == (height, width, frames, fps)
    assert (params.num_inference_steps, params.guidance_scale) == (steps, guidance)
    assert params.guidance_scale_2 == (3.0 if name == "Wan-AI/Wan2.2-T2V-A14B-Diffusers" else None)
    preset = PRESETS[name]
    if not hasattr(diffusers, pipeline):
        pytest.skip(f"this diffusers has no {pipeline}")
    family = next((one for one in FAMILIES.values() if one.transformer == preset.transformer), FAMILIES["Wan"])
    assert preset.task == PipelineInputs.of(pipeline, family, name).task
    assert hasattr(diffusers, preset.transformer)


SHIFTS = {
    **{name: {(480, 832): 3.0, (720, 1280): 5.0} for name in PUBLISHED if name.startswith("Wan-AI/Wan2.1")},
    **{SKYREELS.format(f"{kind}-540"): {(544, 960): 8.0} for kind in ("DF-1.3B", "DF-14B", "T2V-14B")},
    **{SKYREELS.format(f"{kind}-720"): {(720, 1280): 8.0} for kind in ("DF-14B", "T2V-14B")},
    **{SKYREELS.format(f"{kind}-540"): {(544, 960): 5.0} for kind in ("I2V-1.3B", "I2V-14B")},
    SKYREELS.format("I2V-14B-720"): {(720, 1280): 5.0},
}


def test_flow_shifts_are_those_of_diffusers_examples() -> None:
    assert {name: preset.flow_shift for name, preset in PRESETS.items() if preset.flow_shift} == SHIFTS
    assert "flow_shift = 5.0  # 5.0 for 720P, 3.0 for 480P" in examples("WanPipeline")
    assert "flow_shift = 8.0  # 8.0 for T2V, 5.0 for I2V" in examples("SkyReelsV2Pipeline")


@pytest.mark.parametrize("name", [name for name, one in PRESETS.items() if one.sampling.get("negative_prompt")])
def test_negative_prompts_are_those_of_diffusers_examples(name: str) -> None:
    """Word for word; the example for Wan's VACE and those of Kandinsky wrap theirs."""
    pipeline = PUBLISHED[name][0]
    if not hasattr(diffusers, pipeline):
        pytest.skip(f"this diffusers has no {pipeline}")
    assert PRESETS[name].sampling["negative_prompt"] in examples(pipeline)


def examples(pipeline: str) -> str:
    module = inspect.getmodule(getattr(diffusers, pipeline))
    found = [value for key, value in vars(module).items() if re.fullmatch(r"EXAMPLE_DOC_STRING\w*", key)]
    return "".join(found)


def test_every_preset_can_be_checked() -> None:
    for preset in PRESETS.values():
        params = SamplingParam.from_preset(preset)
        assert not [*params._wrong_types(), *params._wrong_values()]


@pytest.mark.slow
def test_parameters_are_those_of_the_models() -> None:
    """Counted on the meta device from the published configurations, each part once."""
    counts: dict[str, int] = {}
    for name, parts in MODELS.items():
        for component, part in parts.items():
            key = json.dumps([part.kind, dict(part.config)], sort_keys=True)
            if key not in counts:
                counts[key] = part.count()
            assert PRESETS[name].parameters[component] == counts[key], (name, component)
    known = {(preset.transformer, preset.parameters.get("transformer")) for preset in PRESETS.values()}
    counted = {(parts["transformer"].kind, PRESETS[name].parameters["transformer"]) for name, parts in MODELS.items()}
    assert {kind for kind, count in known - counted if count is not None} == set()


def test_fv_models_lists_them_with_what_is_known() -> None:
    listed = {one["name"]: one for one in json.loads(CliRunner().invoke(fv, ["models", "--json"]).stdout)}
    assert listed.keys() >= {*PUBLISHED, "shapes"}
    wan = listed["Wan-AI/Wan2.1-T2V-1.3B-Diffusers"]
    assert (wan["family"], wan["task"]) == ("Wan", "text to video")
    assert wan["flow_shift"] == {"480x832": 3.0, "720x1280": 5.0}
    assert wan["weights_bytes"] == 2 * (1_418_996_800 + 5_680_910_336) + 4 * 126_892_531
    assert wan["policies"]["TEACACHE"] == {"serves": True, "settings": {"threshold": 0.05}}
    without = listed["Wan-AI/Wan2.2-TI2V-5B-Diffusers"]["policies"]["TEACACHE"]
    assert not without["serves"]
    assert "TEACACHE has no coefficients for" in without["reason"]
    table = CliRunner().invoke(fv, ["models"]).stdout
    row = next(line for line in table.splitlines() if line.startswith("Wan-AI/Wan2.2-T2V-A14B"))
    assert re.search(r"Wan +text to video +720x1280 +81 at 16 +2 x 14\.3 B +64\.3 GiB", row)
    assert "TEACACHE" not in row
    shapes = next(line for line in table.splitlines() if line.startswith("shapes"))
    assert re.search(r"128x128 +33 at 16 +6\.2 M .*TEACACHE", shapes)


def test_what_a_preset_does_not_state_is_read_from_its_folder(tmp_path: Path) -> None:
    pipe = build_wan_pipeline()
    pipe.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "vae" / "broken.safetensors").write_bytes(b"\xff" * 20)
    presets = [
        ModelPreset("here", str(tmp_path / "model")),
        ModelPreset("far", "org/model"),
        ModelPreset("unknown", "org/model", transformer="NoSuchTransformer", task="text to video"),
    ]
    listed = {one.name: one for one in listed_models(plugins_with(presets=presets))}
    here, counts = listed["here"], {}
    for name in ("transformer", "text_encoder", "vae"):
        counts[name] = sum(one.numel() for one in getattr(pipe, name).state_dict().values())
    tied = pipe.text_encoder.shared.weight.numel()
    assert (here.family, here.task) == ("Wan", None)
    assert {**here.parameters, "text_encoder": here.parameters["text_encoder"] + tied} == counts
    assert (listed["far"].family, listed["far"].weights_bytes, listed["far"].parameters) == (None, None, {})
    assert (listed["unknown"].family, listed["unknown"].policies) == (None, {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"flow_shift": {480: 3.0}}, "the flow_shift of the model preset 'm' is"),
        ({"flow_shift": {(480, 832): "3"}}, "the flow_shift of the model preset 'm' is"),
        ({"parameters": {"transformer": -1}}, "the parameters of the model preset 'm' are"),
        ({"task": None}, "the task of the model preset 'm' is None, it must be text"),
    ],
)
def test_presets_that_state_nonsense_are_refused(given: dict[str, Any], message: str) -> None:
    from fastvideo_core.discovery.provided import checked_preset
    from fastvideo_core.errors import PluginError

    with pytest.raises(PluginError, match=message):
        checked_preset(ModelPreset("m", "org/m", **given))
