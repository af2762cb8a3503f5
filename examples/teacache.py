"""Generate a video without and with TeaCache, and print the speed-up: python examples/teacache.py [threshold]."""

import sys

from fastvideo_core import SamplingParam, VideoGenerator

MODEL = "shapes"
PROMPT = "a red circle moving left on a white background"
STEPS = 20


def main(threshold: float | None = None) -> None:
    params = SamplingParam.from_pretrained(model_path=MODEL)
    params.num_inference_steps = STEPS
    params.teacache_params.teacache_thresh = threshold  # the higher, the more steps are skipped; None: the model's own
    with VideoGenerator.from_pretrained(model_path=MODEL) as generator:
        generator.generate_video(PROMPT, params, num_inference_steps=2, save_video=False)  # a warm-up
        without = generator.generate_video(PROMPT, params, output_path="outputs/")
        with_teacache = generator.generate_video(PROMPT, params, enable_teacache=True, output_path="outputs/")
    for name, result in (("without", without), ("with TeaCache", with_teacache)):
        receipt = result.receipt
        skipped = sum(receipt.steps_skipped.values())
        print(f"{name:14} {receipt.seconds['denoise']:6.2f} s, {skipped} forward passes skipped, {result.video_path}")
    speed_up = without.receipt.seconds["denoise"] / with_teacache.receipt.seconds["denoise"]
    print(f"speed-up of denoising: {speed_up:.2f}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else None)
