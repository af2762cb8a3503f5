"""DIFFUSERS_<NAME>: every attention backend that diffusers has, as one of fastvideo-core.

The names are read from the text of diffusers' module: importing it would make every start of the program slow.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fastvideo_core import AttentionBackend, AttentionCall, AttentionFunction, Capabilities, Probe, hookimpl
from fastvideo_core.kernels import HubKernel
from fv_diffusers.declared import capabilities_of

if TYPE_CHECKING:
    import torch

api_version = 2


class DiffusersAttention(AttentionBackend):
    """One of diffusers' attention backends; subclasses say which."""

    variable_prefix = "FASTVIDEO_DIFFUSERS"
    value: ClassVar[str]
    """As diffusers' `set_attention_backend` takes it, such as "_native_cudnn"."""
    capabilities: Capabilities

    def probe(self) -> Probe:
        try:
            from diffusers.models import attention_dispatch as dispatch

            name = dispatch.AttentionBackendName(self.value)
            function = dispatch._AttentionBackendRegistry._backends[name]
        except Exception as error:  # another diffusers, or one that does not import
            reason = f"diffusers has no attention backend {self.value!r} that can be reached: {error!r}"
            return Probe(False, reason=reason, remedy="pip install 'diffusers>=0.40,<0.43'")
        if problem := self._no_device():
            return Probe(False, reason=problem, remedy="Use another backend")
        try:
            dispatch._check_attention_backend_requirements(name)
        except Exception as error:  # as diffusers says it, and what to do with it
            said, _, remedy = str(error).rstrip(".").partition(". Please ")
            return Probe(
                False, reason=said, remedy=f"{remedy[:1].upper()}{remedy[1:]}" or "See diffusers' documentation"
            )
        if hub := self._hub(dispatch):
            return hub.probe(self.device)
        path = f"{function.__module__}.{function.__qualname__}"
        return Probe(True, kernel=path, version=version("diffusers"))

    def load(self) -> AttentionFunction:
        import torch
        from diffusers.models import attention_dispatch as dispatch

        name = dispatch.AttentionBackendName(self.value)
        if hub := self._hub(dispatch):
            _give(dispatch, name, hub)
        function = dispatch._AttentionBackendRegistry._backends[name]
        takes = dispatch._AttentionBackendRegistry._supported_arg_names[name]
        scales = "scale" in takes and self.value != "sage_blackwell_hub"  # which refuses any but its own
        if self.value == "flex":
            function = _flex(function, self.device if torch.cuda.is_available() else "cpu")

        def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            if key.shape[1] == 1 and self.value == "_native_cudnn":
                return _of_one_key(query, value)
            options: dict[str, Any] = {"scale": call.scale} if scales else {}
            if call.scale is not None and not scales:
                query = query * (call.scale * query.shape[-1] ** 0.5)
            if query.shape[2] != key.shape[2]:
                options["enable_gqa"] = True
            result: torch.Tensor = function(query, key, value, attn_mask=call.mask, **options)
            return result

        return attend

    def _hub(self, dispatch: Any) -> HubKernel | None:
        """The kernel of the hub that diffusers would fetch; None if it is not one of these."""
        config = getattr(dispatch, "_HUB_KERNELS_REGISTRY", {}).get(self.value)
        if config is None:
            return None
        return HubKernel(
            self.name, config.repo_id, config.version or 0, config.function_attr, revision=config.revision or ""
        )

    def _no_device(self) -> str | None:
        """Why the device is not one that it runs on, or None."""
        import torch

        kinds, kind = self.capabilities.devices, self.device.partition(":")[0]
        if kinds is not None and kind not in kinds:
            return f"{self.name} runs on {' and '.join(sorted(kinds))}, not on {kind}"
        if kind == "cuda" and kinds == frozenset({"cuda"}) and not torch.cuda.is_available():
            return f"{self.name} needs a GPU, torch {torch.__version__} sees none"
        return None


def _of_one_key(query: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention to one key is its value, whatever the query; torch's cuDNN has no kernel for that."""
    return _for_each_head(value, query.shape[2]).expand(-1, query.shape[1], -1, -1).contiguous()


def _for_each_head(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys or values of grouped heads, repeated for as many heads."""
    return tensor.repeat_interleave(heads // tensor.shape[2], dim=2)


def _give(dispatch: Any, name: Any, hub: HubKernel) -> None:
    """Hand diffusers the kernel that was loaded, so that it fetches none itself."""
    config, module = dispatch._HUB_KERNELS_REGISTRY[name], hub.module()
    config.kernel_fn = dispatch._resolve_kernel_attr(module, config.function_attr)
    for kind in ("forward", "backward"):
        if attribute := getattr(config, f"wrapped_{kind}_attr", None):
            setattr(config, f"wrapped_{kind}_fn", dispatch._resolve_kernel_attr(module, attribute))


_LEAST_SIZE = 16


@cache
def _flex(function: Any, device: str) -> Any:
    """Compiled for a GPU; on a CPU traced alone, so that every score is computed, which few tokens bear.

    On a GPU it has no kernel for heads smaller than `_LEAST_SIZE`, which get zeros, and none for groups of heads in
    float32 that fits an H100's shared memory: keys and values are repeated.
    """
    import torch
    from torch.nn.attention.flex_attention import BlockMask
    from torch.nn.functional import pad

    # One block that is seen: flex would make it at each call, by means that a graph around it does not allow.
    one = torch.ones(1, 1, 1, dtype=torch.int32, device=device)
    everything = BlockMask.from_kv_blocks(one, torch.zeros_like(one)[..., None], BLOCK_SIZE=1 << 30, seq_lengths=(1, 1))
    how: dict[str, Any] = {} if one.is_cuda else {"backend": "eager"}
    compiled: Any = torch.compile(function, dynamic=True, **how)

    def run(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: None,
        scale: float | None,
        **options: Any,
    ) -> Any:
        size = query.shape[-1]
        if query.dtype == torch.float32 and options.pop("enable_gqa", False):
            key, value = (_for_each_head(tensor, query.shape[2]) for tensor in (key, value))
        tensors: tuple[torch.Tensor, ...] = query, key, value
        if size < _LEAST_SIZE:  # pad copies, also where it adds nothing
            tensors = tuple(pad(tensor, (0, _LEAST_SIZE - size)) for tensor in tensors)
        # A scale that varied would become a tensor, and be read at every call.
        with torch._dynamo.config.patch(recompile_limit=64, specialize_float=True), torch.no_grad():
            result = compiled(*tensors, attn_mask=everything, scale=size**-0.5 if scale is None else scale, **options)
        return result[..., :size]

    return run


def names_in_diffusers() -> list[str]:
    """What diffusers' enumeration has, without importing it; empty where there is no diffusers."""
    found = find_spec("diffusers")
    path = Path(found.origin).parent / "models" / "attention_dispatch.py" if found and found.origin else None
    if path is None or not path.is_file():
        return []
    enumeration = path.read_text("utf-8").partition("class AttentionBackendName")[2].partition("\nclass ")[0]
    return re.findall(r'^    \w+ = "(\w+)"', enumeration, re.MULTILINE)


def backend_for(value: str) -> AttentionBackend:
    """The backend that stands for one of diffusers', such as DIFFUSERS_NATIVE_CUDNN for "_native_cudnn"."""
    name = f"DIFFUSERS_{value.strip('_').upper()}"
    lossless = capabilities_of(value).lossless
    own = {
        "__module__": __name__,
        "name": name,
        "value": value,
        "capabilities": capabilities_of(value),
        "overflows_in": frozenset() if lossless else frozenset({"float16", "bfloat16"}),
    }
    made: AttentionBackend = type(name, (DiffusersAttention,), own)()
    return made


@hookimpl
def fastvideo_attention_backends() -> list[AttentionBackend]:
    return [backend_for(value) for value in names_in_diffusers()]
