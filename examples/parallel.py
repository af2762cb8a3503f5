"""Several processes make a video: torchrun --nproc-per-node 2 examples/parallel.py, or with this script's own.

Without torchrun the generator starts its processes itself: python examples/parallel.py [NUMBER].
"""

import os
import sys
from typing import Any

import torch
from diffusers import WanPipeline
from fv_shapes.plugin import MODEL_FOLDER

from fastvideo_core import Receipt, VideoGenerator, attach

PROMPT = "a blue cross moving up on a gray background"
SIZE: dict[str, Any] = {"height": 128, "width": 128, "num_frames": 33, "num_inference_steps": 20}


def under_torchrun() -> Receipt:
    """Every process loads the pipeline, attaches, and makes the same call."""
    device = "cpu"
    if torch.cuda.is_available():
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    pipe = WanPipeline.from_pretrained(MODEL_FOLDER, dtype=torch.float32).to(device)
    pipe.set_progress_bar_config(disable=True)
    with attach(pipe, attention_backend="TORCH_SDPA", parallel="auto") as fv:
        pipe(PROMPT, **SIZE, generator=torch.Generator("cpu").manual_seed(1))
        return fv.receipt


def with_own_processes(number: int) -> Receipt:
    """The generator starts processes, on GPUs where there are as many."""
    gpus = torch.cuda.device_count() >= number > 1
    where: dict[str, Any] = {"num_gpus": number} if gpus else {"num_processes": number, "device": "cpu"}
    with VideoGenerator.from_pretrained("shapes", attention_backend="TORCH_SDPA", **where) as generator:
        receipt: Receipt = generator.generate_video(PROMPT, **SIZE).receipt
        return receipt


def main(number: int = 2) -> None:
    launched = "RANK" in os.environ
    receipt = under_torchrun() if launched else with_own_processes(number)
    if launched and os.environ["RANK"] != "0":
        return
    print(f"denoising: {receipt.seconds['denoise']:.2f} s")
    if (shared := receipt.parallel) is not None:
        print(f"{shared.processes} processes: guidance {shared.guidance} x sequence {shared.sequence}")
        for one in shared.ranks:
            print(f"  process {one.rank} on {one.device}: calls {one.calls}, {one.bytes_sent / 2**20:.1f} MiB sent")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
