"""Put an attention backend on a pipeline of one's own, and take it off again."""

import torch
from diffusers import WanPipeline
from fv_shapes.plugin import MODEL_FOLDER

from fastvideo_core import attach


def main() -> None:
    pipe = WanPipeline.from_pretrained(MODEL_FOLDER, dtype=torch.float32)
    with attach(pipe, attention_backend="TORCH_SDPA") as fv:
        pipe(
            "a blue cross moving up on a gray background", height=128, width=128, num_frames=33, num_inference_steps=20
        )
        print(fv.receipt)


if __name__ == "__main__":
    main()
