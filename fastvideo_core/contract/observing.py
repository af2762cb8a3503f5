"""What plugins that watch are told of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(eq=False)
class Generation:
    """One video that is being made; the same object for all that is told of it.

    Attributes:
        pipeline: the class name of the pipeline.
        num_steps: denoising steps; `steps_done` of them are done. It grows where a pipeline starts another loop, as one
            does that makes a long video chunk after chunk.
        model: as the user gave it; None under `attach`.
        prompt: as the user gave it; None under `attach`.
        show_progress: whether the user wants to see progress; under `attach` diffusers shows its own.
        video_path: the file, once it is written.
        cancelled: whether `cancel` was called.
    """

    pipeline: str
    num_steps: int = 0
    steps_done: int = 0
    model: str | None = None
    prompt: str | None = None
    show_progress: bool = False
    video_path: Path | None = None
    cancelled: bool = False

    def cancel(self) -> None:
        """End it after the step that is under way, from whichever thread: the call that makes it raises CancelledError.

        Where several processes make the video, they are ended too, and the generator is closed.
        """
        self.cancelled = True
