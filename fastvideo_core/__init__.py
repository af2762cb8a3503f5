"""Attention kernels and caching policies for video diffusion, as plugins of unmodified diffusers pipelines.

Importing this package imports neither torch nor diffusers; the names below load what they need at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastvideo_core.discovery.importing import uncollected

if TYPE_CHECKING:
    from fastvideo_core.app.batch.reading import read_rows
    from fastvideo_core.app.batch.row import PromptRow, RowResult, RowStatus
    from fastvideo_core.app.choices import check_names
    from fastvideo_core.app.files import JsonLines, check_output_file, read_prompts, written_whole
    from fastvideo_core.app.generator import VideoGenerator
    from fastvideo_core.app.model_info import family_names
    from fastvideo_core.app.offered import Choices
    from fastvideo_core.app.preview import preview_plan
    from fastvideo_core.app.result import VideoResult
    from fastvideo_core.app.sampling import SamplingParam, TeaCacheParams, check_sampling
    from fastvideo_core.cli.batch import Batch
    from fastvideo_core.cli.options import (
        memory_options,
        only_given,
        prompt_progress,
        sampling_options,
        settings_for_asked,
        settings_for_backend,
        settings_option,
        split_settings,
    )
    from fastvideo_core.contract.attention import (
        AttentionBackend,
        AttentionCall,
        AttentionFunction,
        Capabilities,
        KernelUsed,
        MaskKind,
        Need,
        Probe,
        Role,
        Run,
        TokenLayout,
        TokenOrder,
    )
    from fastvideo_core.contract.caching import (
        Action,
        Branch,
        CachedModel,
        CachePolicy,
        Computed,
        Signal,
        Step,
        relative_change,
    )
    from fastvideo_core.contract.executor import Channel, Executor, Work
    from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
    from fastvideo_core.contract.model import AttentionSite, BlockStack, Geometry, HintBlocks, ModelFamily
    from fastvideo_core.contract.observing import Generation
    from fastvideo_core.contract.preset import ModelPreset
    from fastvideo_core.contract.receipt import (
        CacheReceipt,
        KernelReceipt,
        ParallelReceipt,
        RankReceipt,
        Receipt,
        RoleReceipt,
    )
    from fastvideo_core.contract.settings import setting
    from fastvideo_core.engine.attachment import Attachment, attach

_HOMES = {
    "API_VERSION": "contract.hookspecs",
    "Action": "contract.caching",
    "Attachment": "engine.attachment",
    "AttentionBackend": "contract.attention",
    "AttentionCall": "contract.attention",
    "AttentionFunction": "contract.attention",
    "AttentionSite": "contract.model",
    "Batch": "cli.batch",
    "BlockStack": "contract.model",
    "Branch": "contract.caching",
    "CachePolicy": "contract.caching",
    "CacheReceipt": "contract.receipt",
    "CachedModel": "contract.caching",
    "Capabilities": "contract.attention",
    "Channel": "contract.executor",
    "Choices": "app.offered",
    "Computed": "contract.caching",
    "Executor": "contract.executor",
    "Generation": "contract.observing",
    "Geometry": "contract.model",
    "HintBlocks": "contract.model",
    "JsonLines": "app.files",
    "KernelReceipt": "contract.receipt",
    "KernelUsed": "contract.attention",
    "MaskKind": "contract.attention",
    "ModelFamily": "contract.model",
    "ModelPreset": "contract.preset",
    "Need": "contract.attention",
    "ParallelReceipt": "contract.receipt",
    "Probe": "contract.attention",
    "PromptRow": "app.batch.row",
    "RankReceipt": "contract.receipt",
    "Receipt": "contract.receipt",
    "Role": "contract.attention",
    "RoleReceipt": "contract.receipt",
    "RowResult": "app.batch.row",
    "RowStatus": "app.batch.row",
    "Run": "contract.attention",
    "SamplingParam": "app.sampling",
    "Signal": "contract.caching",
    "Step": "contract.caching",
    "TeaCacheParams": "app.sampling",
    "TokenLayout": "contract.attention",
    "TokenOrder": "contract.attention",
    "VideoGenerator": "app.generator",
    "VideoResult": "app.result",
    "Work": "contract.executor",
    "attach": "engine.attachment",
    "check_names": "app.choices",
    "check_output_file": "app.files",
    "check_sampling": "app.sampling",
    "family_names": "app.model_info",
    "hookimpl": "contract.hookspecs",
    "memory_options": "cli.options",
    "only_given": "cli.options",
    "preview_plan": "app.preview",
    "prompt_progress": "cli.options",
    "read_prompts": "app.files",
    "read_rows": "app.batch.reading",
    "relative_change": "contract.caching",
    "sampling_options": "cli.options",
    "setting": "contract.settings",
    "settings_for_asked": "cli.options",
    "settings_for_backend": "cli.options",
    "settings_option": "cli.options",
    "split_settings": "cli.options",
    "written_whole": "app.files",
}

__all__ = [
    "API_VERSION",
    "Action",
    "Attachment",
    "AttentionBackend",
    "AttentionCall",
    "AttentionFunction",
    "AttentionSite",
    "Batch",
    "BlockStack",
    "Branch",
    "CachePolicy",
    "CacheReceipt",
    "CachedModel",
    "Capabilities",
    "Channel",
    "Choices",
    "Computed",
    "Executor",
    "Generation",
    "Geometry",
    "HintBlocks",
    "JsonLines",
    "KernelReceipt",
    "KernelUsed",
    "MaskKind",
    "ModelFamily",
    "ModelPreset",
    "Need",
    "ParallelReceipt",
    "Probe",
    "PromptRow",
    "RankReceipt",
    "Receipt",
    "Role",
    "RoleReceipt",
    "RowResult",
    "RowStatus",
    "Run",
    "SamplingParam",
    "Signal",
    "Step",
    "TeaCacheParams",
    "TokenLayout",
    "TokenOrder",
    "VideoGenerator",
    "VideoResult",
    "Work",
    "attach",
    "check_names",
    "check_output_file",
    "check_sampling",
    "family_names",
    "hookimpl",
    "memory_options",
    "only_given",
    "preview_plan",
    "prompt_progress",
    "read_prompts",
    "read_rows",
    "relative_change",
    "sampling_options",
    "setting",
    "settings_for_asked",
    "settings_for_backend",
    "settings_option",
    "split_settings",
    "written_whole",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with uncollected():
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
