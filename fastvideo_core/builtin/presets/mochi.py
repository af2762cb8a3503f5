"""The preset of Mochi 1, from its model card: https://huggingface.co/genmo/mochi-1-preview."""

from __future__ import annotations

from fastvideo_core.builtin.presets.parts import T5_XXL
from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.preset import ModelPreset

api_version = API_VERSION


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """Size, steps and guidance as the model card of the checkpoint uses them."""
    return [
        ModelPreset(
            "genmo/mochi-1-preview",
            "genmo/mochi-1-preview",
            {
                "height": 480,
                "width": 848,
                "num_frames": 85,
                "fps": 30,
                "num_inference_steps": 64,
                "guidance_scale": 4.5,
            },
            "Mochi 1 text-to-video, 10 billion parameters",
            transformer="MochiTransformer3DModel",
            task="text to video",
            parameters={"transformer": 10_027_677_744, "text_encoder": T5_XXL, "vae": 459_748_611},
        ),
    ]
