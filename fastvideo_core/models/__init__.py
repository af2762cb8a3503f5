"""One small file per model family, and how to find the family of a pipeline."""

from __future__ import annotations

from fastvideo_core.errors import UnsupportedModelError
from fastvideo_core.models.cogvideox import COGVIDEOX
from fastvideo_core.models.family import ModelFamily
from fastvideo_core.models.hunyuan_video import HUNYUAN_VIDEO
from fastvideo_core.models.ltx_video import LTX_VIDEO
from fastvideo_core.models.mochi import MOCHI
from fastvideo_core.models.wan import WAN

FAMILIES: tuple[ModelFamily, ...] = (WAN, HUNYUAN_VIDEO, LTX_VIDEO, COGVIDEOX, MOCHI)


def family_of(pipeline_classes: list[str], what: str) -> ModelFamily:
    """The family that serves one of the class names (a class and its bases, nearest first).

    Raises:
        UnsupportedModelError: none does.
    """
    for name in pipeline_classes:
        for family in FAMILIES:
            if name in family.pipelines:
                return family
    supported = ", ".join(sorted(name for family in FAMILIES for name in family.pipelines))
    raise UnsupportedModelError(f"{what} is a {pipeline_classes[0]}; supported pipelines: {supported}")
