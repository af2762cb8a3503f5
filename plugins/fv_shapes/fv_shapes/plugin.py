"""The preset `shapes`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastvideo_core import ModelPreset, hookimpl

api_version = 2

MODEL_FOLDER = Path(__file__).parent / "model"


def _score(frames: Any, prompt: str) -> dict[str, bool] | str:
    from fv_shapes.score import judge

    judged = judge(frames, prompt)
    return judged.not_judged or judged.right


@hookimpl
def fastvideo_model_presets() -> list[ModelPreset]:
    """The model in this package."""
    return [
        ModelPreset(
            "shapes",
            str(MODEL_FOLDER),
            {
                "height": 128,
                "width": 128,
                "num_frames": 33,
                "num_inference_steps": 20,
                "guidance_scale": 3.0,
                "max_sequence_length": 64,
                "fps": 16,
            },
            "a simple shape moving on a plain background; 17 to 45 frames of 128x128 to 256x256",
            _score,
            transformer="WanTransformer3DModel",
            task="text to video",
            parameters={"transformer": 6_188_576, "text_encoder": 340_864, "vae": 2_007_216},
        )
    ]
