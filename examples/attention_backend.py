"""Generate a video with torch's own attention and with another backend: python examples/attention_backend.py FLASH_ATTN

Without a name it is FASTVIDEO_ATTENTION_BACKEND, or the automatic choice.
"""

import sys

from fastvideo_core import SamplingParam, VideoGenerator, VideoResult

MODEL = "shapes"
PROMPT = "a red circle moving left on a white background"
STEPS = 20


def generate(backend: str | None) -> VideoResult:
    params = SamplingParam.from_pretrained(model_path=MODEL)
    params.num_inference_steps = STEPS
    with VideoGenerator.from_pretrained(model_path=MODEL, attention_backend=backend) as generator:
        generator.generate_video(PROMPT, params, num_inference_steps=2, save_video=False)  # a warm-up
        return generator.generate_video(PROMPT, params, output_path="outputs/")


def main(backend: str | None = None) -> None:
    plain, other = generate("TORCH_SDPA"), generate(backend)
    for result in (plain, other):
        served = ", ".join(f"{role} {used.backend} ({used.version})" for role, used in result.receipt.attention.items())
        print(f"{result.receipt.seconds['denoise']:6.2f} s  {served}  {result.video_path}")
    print(f"speed-up of denoising: {plain.receipt.seconds['denoise'] / other.receipt.seconds['denoise']:.2f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
