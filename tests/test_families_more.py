"""More model families pass the suite: Kandinsky 5, Cosmos, Helios."""

from __future__ import annotations

from typing import Any

import torch

from fastvideo_core.testing import ModelFamilySuite
from tests.support.families import FAMILIES
from tests.support.models import SIZE, run_to_latents
from tests.support.models_more import MORE


class OfMore(ModelFamilySuite):
    """The suite on a pipeline of `MORE`."""

    kind = ""

    def build(self) -> Any:
        return MORE[self.kind][0]()

    def generate(self, pipe: Any) -> torch.Tensor:
        return torch.from_numpy(run_to_latents(pipe, **{"num_inference_steps": 4, **MORE[self.kind][1]}))


def suite(kind: str, family: str, **changes: Any) -> type:
    size = {**SIZE, **MORE[kind][1]}
    frames_height_width = (size["num_frames"], size["height"], size["width"])
    return type("Test", (OfMore,), {"kind": kind, "family": FAMILIES[family], "size": frames_height_width, **changes})


CHANNELS_LAST = {"latent_axes": (2, 3)}

TestKandinsky5 = suite("Kandinsky 5", "Kandinsky 5", **CHANNELS_LAST)
TestKandinsky5Image = suite("Kandinsky 5 image", "Kandinsky 5", **CHANNELS_LAST)
TestCosmos1 = suite("Cosmos 1", "Cosmos")
TestCosmos25 = suite("Cosmos 2.5", "Cosmos")
TestHelios = suite("Helios", "Helios")
