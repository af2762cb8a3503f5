"""What a service takes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of a service.

    Attributes:
        body_bytes: of a request.
        body_seconds: in which a client has to send it.
        queue: jobs that may wait.
        work: height x width x num_frames x num_inference_steps of a job.
        text_tokens: max_sequence_length of a job.
        image_pixels: of an image to start from.
        prompt_letters: of a prompt, and of a negative one.
        disk_bytes: of all videos; the oldest are removed beyond it.
        keep_seconds: how long a video is kept after its end.
    """

    body_bytes: int = 32 * 2**20
    body_seconds: float = 30.0
    queue: int = 1000
    work: int = 1280 * 720 * 257 * 100
    text_tokens: int = 1024
    image_pixels: int = 40_000_000
    prompt_letters: int = 20_000
    disk_bytes: int = 20 * 2**30
    keep_seconds: float = 24 * 3600.0
