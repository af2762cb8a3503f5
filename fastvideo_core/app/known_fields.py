"""Names that a user may give: an unknown one is refused with what was meant, or with what there is instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from fastvideo_core.errors import InputError

_BY_HAND = "attach() a diffusers pipeline of your own, and give it to that"
_NOT_HERE = "leave it out: num_gpus shares the video's tokens and guidance branches"

INSTEAD = {
    "frames": "num_frames",
    "steps": "num_inference_steps",
    "output": "output_path",
    "image": "image_path",
    "video": "video_path",
    "prompt": "the first argument of generate_video",
    "prompt_path": "generate_video(read_prompts(path)), or fv generate --prompts FILE",
    "pil_image": "image_path",
    "guidance_rescale": _BY_HAND,
    "boundary_ratio": _BY_HAND,
    "sigmas": _BY_HAND,
    "embedded_cfg_scale": "guidance_scale",
    "data_type": "num_frames, which says it",
    "return_trajectory_latents": "callback_on_step_end of a diffusers pipeline under attach()",
    "return_trajectory_decoded": "callback_on_step_end of a diffusers pipeline under attach()",
    "moba_config_path": "a backend of a plugin, and attention_config=",
    "cache_params": "cache= and cache_config=",
    "use_cpu_offload": "dit_cpu_offload, vae_cpu_offload and text_encoder_cpu_offload",
    "image_encoder_cpu_offload": "dit_cpu_offload, vae_cpu_offload and text_encoder_cpu_offload",
    "use_fsdp_inference": "shard_weights",
    "tp_size": _NOT_HERE,
    "hsdp_replicate_dim": _NOT_HERE,
    "hsdp_shard_dim": _NOT_HERE,
    "dist_timeout": "FASTVIDEO_PARALLEL_TIMEOUT in the environment",
    "enable_torch_compile": "compile",
    "torch_compile_kwargs": "compile",
    "disable_autocast": "dtype",
    "pipeline_config": "a folder in diffusers format, whose files say it",
    "override_pipeline_cls_name": "a folder in diffusers format, whose files say it",
    "trust_remote_code": "attach(): no code of a model is run here",
    "revision": "huggingface_hub.snapshot_download(…, revision=…), and the folder that it returns",
    "lora_path": "load_lora_weights of a diffusers pipeline under attach()",
    "VSA_sparsity": "SLIDING_TILE_ATTN, or another backend of a plugin, and attention_config=",
    "STA_mode": "attention_backend='SLIDING_TILE_ATTN', and attention_config=",
    "mask_strategy_file_path": "attention_config= of SLIDING_TILE_ATTN",
}
"""What `fv generate` or FastVideo 0.1.7 takes under this name and Python here does not, with what to use."""


def unknown_field(what: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that there is not."""
    names = list(known)
    if name in INSTEAD:
        return InputError(f"there is no {what} {name!r} here; use instead: {INSTEAD[name]}")
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
    return InputError(f"unknown {what} {name!r}; {hint}")


class KnownFields:
    """A dataclass that takes no attributes but its fields."""

    @classmethod
    def check_known(cls, what: str, names: Iterable[str]) -> None:
        """Raise InputError with the first of the names that is no field; `what` is what a name stands for."""
        known = [one.name for one in fields(cls)]  # type: ignore[arg-type]  # those who inherit are dataclasses
        for name in names:
            if name not in known:
                raise unknown_field(what, name, known)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field.

        Raises:
            InputError: there is no such field.
        """
        self.check_known(f"field of {type(self).__name__}", [name])
        super().__setattr__(name, value)


def check_flags(**values: object) -> None:
    """Refuse what is neither True nor False: "no" would count as yes.

    Raises:
        InputError: with its name.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise InputError(f"{name} is {value!r}, it must be True or False")
