"""The preset of SANA-Video, from diffusers' page on sana_video and its example.

https://huggingface.co/Efficient-Large-Model/SANA-Video_2B_480p_diffusers
"""

from __future__ import annotations

from fastvideo_core.builtin.presets.parts import WAN_VAE
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION

NEGATIVE_PROMPT = (
    "A chaotic sequence with misshapen, deformed limbs in heavy motion blur, sudden disappearance, jump cuts, jerky "
    "movements, rapid shot changes, frames out of sync, inconsistent character shapes, temporal artifacts, jitter, and "
    "ghosting effects, creating a disorienting visual experience."
)
"""Of diffusers' example, which also ends each prompt with " motion score: 30."."""


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Size, steps and guidance as diffusers' example for the checkpoint uses them."""
    return [
        ModelPreset(
            "Efficient-Large-Model/SANA-Video_2B_480p_diffusers",
            "Efficient-Large-Model/SANA-Video_2B_480p_diffusers",
            {
                "height": 480,
                "width": 832,
                "num_frames": 81,
                "fps": 16,
                "num_inference_steps": 50,
                "guidance_scale": 6.0,
                "negative_prompt": NEGATIVE_PROMPT,
            },
            "SANA-Video text-to-video with linear attention, 2 billion parameters",
            transformer="SanaVideoTransformer3DModel",
            task="text to video",
            parameters={"transformer": 1_905_841_344, "text_encoder": 2_614_341_888, "vae": WAN_VAE},
        ),
    ]
