"""What diffusers' backends serve, by name: its registry says it in checks, which only run when they are called."""

from __future__ import annotations

from fastvideo_core import Capabilities, MaskKind, Role

_ANY_MASK = frozenset({"native", "_native_math", "_native_efficient", "_native_cudnn"})
_GROUPED_HEADS = _ANY_MASK | {"flex"}
_ANYWHERE = frozenset({"native", "flex", "_native_math"})
_DEVICES = {"_native_npu": {"npu"}, "_native_xla": {"xla"}, "_native_flash": {"cuda", "cpu"}}
_ANY_DTYPE = frozenset({*_ANYWHERE, "_native_efficient", "_native_xla", "xformers"})
_HALF = frozenset({"float16", "bfloat16"})


def capabilities_of(value: str) -> Capabilities:
    """Of the backend that diffusers calls so; one that is not known counts as a kernel for GPUs, in half precision."""
    lossless = "sage" not in value
    masks = {MaskKind.NONE, MaskKind.ARBITRARY} if value in _ANY_MASK else {MaskKind.NONE}
    return Capabilities(
        roles=frozenset(Role) if lossless else frozenset({Role.SELF, Role.JOINT}),
        lossless=lossless,
        tolerance=None if lossless else 0.25 if "blackwell" in value else 0.05,
        head_dims=_head_dims(value),
        dtypes=None if value in _ANY_DTYPE else frozenset({"bfloat16"}) if "aiter" in value else _HALF,
        devices=None if value in _ANYWHERE else frozenset(_DEVICES.get(value, {"cuda"})),
        masks=frozenset(masks),
        grouped_heads=value in _GROUPED_HEADS,
    )


def _head_dims(value: str) -> frozenset[int] | None:
    if "blackwell" in value:
        return frozenset({64, 128})
    if "sage" in value:
        return frozenset({64, 96, 128})
    if value == "_native_cudnn" or "flash_4" in value:
        return frozenset(range(8, 129, 8))
    return frozenset(range(8, 257, 8)) if "flash" in value or "aiter" in value else None
