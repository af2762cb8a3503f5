"""What to install on this machine to be fastest: the last line of `fv doctor`.

The ratios are those of docs/backends.md and benchmarks/README.md, which name hardware, versions and commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastvideo_core.contract.attention import Probe


@dataclass(frozen=True)
class Advice:
    """A backend, and what it gains.

    Attributes:
        kernels: how the import paths of the kernels begin that are meant; one of them is enough.
        install: the command; "" where there is nothing to install.
        gains: what was measured, where, and where that stands.
    """

    backend: str
    kernels: tuple[str, ...]
    install: str
    gains: str


_NOT_MEASURED = "not measured by us on this kind of GPU"
_FLASH_4 = "pip install --pre fv-flash flash-attn-4"
_STA = Advice(
    "SLIDING_TILE_ATTN",
    ("flash_attn.cute",),
    "pip install --pre fv-sta flash-attn-4",
    "6.48 times as fast as bare diffusers in a forward pass of HunyuanVideo with the window 3,3,3, on an H200; "
    "docs/backends.md",
)
_TORCH = Advice("TORCH_SDPA", ("torch.",), "", "torch's own attention; nothing exact is faster on a CPU")

_BY_GENERATION: dict[int | None, tuple[Advice, Advice]] = {
    9: (
        Advice(
            "FLASH_ATTN",
            ("flash_attn.cute", "flash_attn_3", "flash_attn_interface", "kernels-community/flash-attn3"),
            _FLASH_4,
            "1.11 times as fast as bare diffusers in 50 steps of Wan 2.1 1.3B, on an H200; docs/backends.md",
        ),
        _STA,
    ),
    8: (
        Advice("FLASH_ATTN", ("flash_attn",), "pip install fv-flash flash-attn --no-build-isolation", _NOT_MEASURED),
        Advice(
            "SAGE_ATTN",
            ("sageattention", "SageAttention/"),
            "pip install 'fv-sage[hub]' and set FASTVIDEO_HUB_KERNELS=1",
            _NOT_MEASURED,
        ),
    ),
    10: (
        Advice("FLASH_ATTN", ("flash_attn.cute",), _FLASH_4, _NOT_MEASURED),
        Advice(
            "SAGE_ATTN",
            ("sageattn3", "SageAttention/sage-blackwell"),
            "pip install 'fv-sage[hub]' and set FASTVIDEO_HUB_KERNELS=1",
            _NOT_MEASURED,
        ),
    ),
    None: (
        _TORCH,
        Advice(
            "SLIDING_TILE_ATTN",
            ("torch.nn.attention",),
            "pip install fv-sta",
            "2.57 times as fast in attention alone at 12x16x16 tokens with the window 1,3,1, on two cores of an AMD "
            "EPYC; benchmarks/README.md",
        ),
    ),
}
_BY_GENERATION |= {11: _BY_GENERATION[10], 12: _BY_GENERATION[10]}


def advice(machine: str, generation: int | None, probes: Mapping[str, Probe]) -> str:
    """One line: the fastest exact backend, and the fastest of all, for a machine.

    Args:
        machine: the GPU's name, or "a CPU".
        generation: the GPU's major compute capability; None for a CPU.
        probes: what each installed backend says, by its name.
    """
    exact, fastest = _BY_GENERATION.get(generation, (_TORCH, _TORCH))
    if generation is not None and generation not in _BY_GENERATION:
        return (
            f"on {machine}: no kernel of these packages is made for compute capability {generation}.x; TORCH_SDPA runs"
        )
    return (
        f"on {machine}: fastest exactly {_told(exact, probes)}; "
        f"fastest at all, and not exact, {_told(fastest, probes)}; skipping steps comes on top (fv-teacache)"
    )


def _told(one: Advice, probes: Mapping[str, Probe]) -> str:
    probe = probes.get(one.backend)
    is_here = probe is not None and probe.available and probe.kernel.startswith(one.kernels)
    state = "is here" if is_here else one.install
    return f"{one.backend} ({f'{state}: ' if state else ''}{one.gains})"
