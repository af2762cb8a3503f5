"""Generate a video and print what ran: FASTVIDEO_ATTENTION_BACKEND=TORCH_SDPA python examples/generate.py"""

from fastvideo_core import SamplingParam, VideoGenerator

MODEL = "shapes"
PROMPT = "a red circle moving left on a white background"


def main() -> None:
    params = SamplingParam.from_pretrained(MODEL)
    params.seed = 1024
    with VideoGenerator.from_pretrained(MODEL) as generator:
        result = generator.generate_video(PROMPT, params, output_path="outputs/")
    print(result.video_path)
    for role, served in result.receipt.attention.items():
        print(f"{role}: {served.backend}, {served.kernel} {served.version}, {served.calls} calls")


if __name__ == "__main__":
    main()
