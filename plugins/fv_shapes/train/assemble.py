"""Put the trained parts together as a folder that WanPipeline.from_pretrained loads."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel


def save_pipeline(
    folder: Path,
    vae: AutoencoderKLWan,
    tokenizer: PreTrainedTokenizerFast,
    text_encoder: UMT5EncoderModel,
    transformer: WanTransformer3DModel,
) -> None:
    """Save in half precision, with the scheduler that Wan 2.1 uses; replace `folder` only when all is written.

    The text encoder stays in float32: transformers would load it as it is stored, diffusers loads in float32.
    """
    vae, transformer = (copy.deepcopy(model).to("cpu", torch.float16) for model in (vae, transformer))
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=copy.deepcopy(text_encoder).to("cpu", torch.float32),
        vae=vae,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=transformer,
    )
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    pipeline.save_pretrained(unfinished)
    for path in unfinished.rglob("*.*"):
        path.chmod(0o644)
        if path.suffix == ".json":
            path.write_text(_portable(path.read_text()))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)


def _portable(text: str) -> str:
    """Without the folder of the training and the padding of its last batch, by names that transformers 4 and 5 know."""
    content = json.loads(text.replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'))
    content.pop("_name_or_path", None)
    if "padding" in content:
        content["padding"] = None
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
