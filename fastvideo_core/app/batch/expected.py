"""What the receipt of a row's video says, if the video was made with the settings of today."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fastvideo_core.app.calling import effective_shift
from fastvideo_core.app.flow_shift import shift_in
from fastvideo_core.app.model_info import ModelInfo
from fastvideo_core.app.sampling import SamplingParam
from fastvideo_core.contract.attention import Role
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.contract.receipt import plain
from fastvideo_core.engine.attention.resolve import Resolution


def expected_of_loading(requested: str | None, resolutions: Mapping[Role, Resolution], dtype: str) -> dict[str, Any]:
    """What all receipts of a generator say: the kernels and the dtype."""
    backends = {role.value: one.backend for role, one in resolutions.items()}
    return {
        "requested_backend": requested,
        "dtype": dtype,
        **{f"attention {role}": [one.name, one.settings_used()] for role, one in backends.items()},
    }


def expected_of_row(
    prompt: str, params: SamplingParam, policy: CachePolicy | None, info: ModelInfo, loading: Mapping[str, Any]
) -> dict[str, Any]:
    """What the receipt of one video says, under the names that differences are told by."""
    second = params.guidance_scale_2
    shift = effective_shift(params, info)
    values = {
        "model": info.name,
        "prompt": prompt,
        "negative_prompt": params.negative_prompt,
        "height": params.height,
        "width": params.width,
        "num_frames": params.num_frames,
        "fps": params.fps,
        "seed": params.seed,
        "num_inference_steps": params.num_inference_steps,
        "guidance_scale": float(params.guidance_scale),
        "guidance_scale_2": None if second is None else float(second),
        "flow_shift": shift_in(info.scheduler) if shift is None else shift,
        "max_sequence_length": params.max_sequence_length,
        "input_image": None if params.image_path is None else str(params.image_path),
        "input_video": None if params.video_path is None else str(params.video_path),
        "cache": None if policy is None else [policy.name, policy.settings_used()],
        **loading,
    }
    plain_values: dict[str, Any] = json.loads(json.dumps(plain(values)))
    return plain_values


def differences(expected: Mapping[str, Any], receipt: Mapping[str, Any]) -> Iterator[str]:
    """Where a receipt, as it is in its file, says something else."""
    cache, attention = receipt.get("cache"), receipt.get("attention")
    there = {**receipt, "cache": cache and _pair(cache, "policy")}
    for role, served in attention.items() if isinstance(attention, dict) else ():
        there[f"attention {role}"] = _pair(served, "backend")
    for name, now in expected.items():
        if name.startswith("attention ") and name not in there:
            continue  # a role that the model has, and this video did not call
        if (before := there.get(name)) != now:
            yield f"{name} was {_shown(before)}, now {_shown(now)}"


def _pair(part: Any, name: str) -> list[Any]:
    return [part.get(name), part.get("settings")] if isinstance(part, dict) else [part]


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
