"""One small file per model family, and how to find the family of a pipeline and its transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastvideo_core.builtin.models.cogvideox import COGVIDEOX
from fastvideo_core.builtin.models.hunyuan_video import HUNYUAN_VIDEO
from fastvideo_core.builtin.models.ltx_video import LTX_VIDEO
from fastvideo_core.builtin.models.mochi import MOCHI
from fastvideo_core.builtin.models.wan import WAN
from fastvideo_core.contract.model import ModelFamily
from fastvideo_core.errors import UnsupportedModelError

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


_COMPILED_HINT = "; compile it in place: pipe.transformer.compile(), or its compile_repeated_blocks()"


def transformers_of(pipe: Any, family: ModelFamily) -> Iterator[tuple[str, Any]]:
    """The pipeline's transformers with their names in it: two in Wan 2.2, one elsewhere.

    Raises:
        UnsupportedModelError: there is none, or one of another class.
    """
    import torch

    found = False
    for name, component in pipe.components.items():
        if any(cls.__name__ == family.transformer for cls in type(component).__mro__):
            found = True
            yield name, component
        elif isinstance(component, torch.nn.Module) and name.startswith("transformer"):
            raise UnsupportedModelError(
                f"the component {name} is a {type(component).__name__}, {family.name} pipelines have a "
                f"{family.transformer} there{_COMPILED_HINT if hasattr(component, '_orig_mod') else ''}"
            )
    if not found:
        raise UnsupportedModelError(f"this {type(pipe).__name__} has no {family.transformer}")
