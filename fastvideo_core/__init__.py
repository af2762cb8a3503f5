"""Attention kernels and caching policies for video diffusion, as plugins of unmodified diffusers pipelines.

Importing this package imports neither torch nor diffusers; the names below load what they need at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvideo_core.attachment import Attachment, attach
    from fastvideo_core.attention.backend import (
        AttentionBackend,
        AttentionCall,
        AttentionFunction,
        Capabilities,
        MaskKind,
        Need,
        Probe,
        Role,
        Run,
        TokenLayout,
        TokenOrder,
    )
    from fastvideo_core.caching.policy import (
        Action,
        CachedModel,
        CachePolicy,
        Computed,
        Signal,
        Step,
        Stream,
        relative_change,
    )
    from fastvideo_core.caching.preview import preview_plan
    from fastvideo_core.generator import VideoGenerator
    from fastvideo_core.hookspecs import API_VERSION, hookimpl
    from fastvideo_core.models.preset import ModelPreset
    from fastvideo_core.observers import Generation
    from fastvideo_core.plugin_settings import setting
    from fastvideo_core.result import CacheReceipt, Receipt, RoleReceipt, VideoResult
    from fastvideo_core.sampling import SamplingParam, TeaCacheParams

_HOMES = {
    "API_VERSION": "hookspecs",
    "Action": "caching.policy",
    "Attachment": "attachment",
    "AttentionBackend": "attention.backend",
    "AttentionCall": "attention.backend",
    "AttentionFunction": "attention.backend",
    "CachePolicy": "caching.policy",
    "CacheReceipt": "result",
    "CachedModel": "caching.policy",
    "Capabilities": "attention.backend",
    "Computed": "caching.policy",
    "Generation": "observers",
    "MaskKind": "attention.backend",
    "ModelPreset": "models.preset",
    "Need": "attention.backend",
    "Probe": "attention.backend",
    "Receipt": "result",
    "Role": "attention.backend",
    "RoleReceipt": "result",
    "Run": "attention.backend",
    "SamplingParam": "sampling",
    "Signal": "caching.policy",
    "Step": "caching.policy",
    "Stream": "caching.policy",
    "TeaCacheParams": "sampling",
    "TokenLayout": "attention.backend",
    "TokenOrder": "attention.backend",
    "VideoGenerator": "generator",
    "VideoResult": "result",
    "attach": "attachment",
    "hookimpl": "hookspecs",
    "preview_plan": "caching.preview",
    "relative_change": "caching.policy",
    "setting": "plugin_settings",
}

__all__ = [
    "API_VERSION",
    "Action",
    "Attachment",
    "AttentionBackend",
    "AttentionCall",
    "AttentionFunction",
    "CachePolicy",
    "CacheReceipt",
    "CachedModel",
    "Capabilities",
    "Computed",
    "Generation",
    "MaskKind",
    "ModelPreset",
    "Need",
    "Probe",
    "Receipt",
    "Role",
    "RoleReceipt",
    "Run",
    "SamplingParam",
    "Signal",
    "Step",
    "Stream",
    "TeaCacheParams",
    "TokenLayout",
    "TokenOrder",
    "VideoGenerator",
    "VideoResult",
    "attach",
    "hookimpl",
    "preview_plan",
    "relative_change",
    "setting",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
