"""Attention backends on this machine: python benchmarks/attention.py [--quick] [--no-suite] [--no-model].

Three parts: the suite on every installed backend that can run; each kernel called directly beside the same call through
the core; one forward pass of a full-size Wan 2.1 1.3B with random weights, eager and compiled. Times are medians;
ratios are medians over calls that alternate in one run. benchmarks/results.py has the file that is written.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

import click
import torch
from results import Results, Table, table
from timing import alternate, in_the_middle, ratio
from ways import BARE, Way, backend, diffusers_own, in_ways

from fastvideo_core import TokenLayout
from fastvideo_core.testing import AttentionPass, probe_backend

SHAPES = ((1, 12, 32760, 128), (1, 40, 32760, 128), (1, 24, 115200, 128))
QUICK_SHAPES = ((1, 4, 512, 64),)
"""(batch, heads, tokens, head_dim)"""

LATENT = (21, 60, 104)
QUICK_LATENT = (3, 8, 12)
"""Frames, height and width of the latents: 81 frames of 480x832 for Wan."""

VERSIONS = ("torch", "diffusers", "flash-attn", "flash-attn-3", "flash-attn-4", "sageattention", "sageattn3")

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Candidate:
    """A backend that can run here, with the settings that make it this kernel."""

    name: str
    settings: dict[str, str]
    kernel: str
    version: str

    @property
    def title(self) -> str:
        """Name and version of what runs."""
        return f"{self.name} ({self.kernel.partition('.')[0]} {self.version})"


@click.command()
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--quick", is_flag=True, help="Small shapes and a small model, to try the script.")
@click.option("--suite/--no-suite", default=True)
@click.option("--model/--no-model", default=True)
@click.option(
    "--rounds", default=15, type=click.IntRange(1), show_default=True, help="Timed rounds; each calls everything once."
)
def main(device: str, quick: bool, suite: bool, model: bool, rounds: int) -> None:
    """Print what was measured, and write it."""
    results = Results("attention", device)
    found = list(candidates(device))
    for candidate in found if suite else ():
        print(run_suite(candidate))
    print(f"\n{describe(device)}")
    for shape in QUICK_SHAPES if quick else SHAPES:
        results.add(time_kernels(found, shape, device, rounds))
    for compiled in (False, True) if model else ():
        results.add(time_forward(found, quick, device, rounds, compiled))
    if not quick:
        results.write()


def candidates(device: str) -> Iterator[Candidate]:
    """Every exact or nearly exact backend of this project that can run on the device; each version of FLASH_ATTN.

    SLIDING_TILE_ATTN computes something else: sta.py measures it.
    """
    versions: list[dict[str, str]] = [{"version": number} for number in "234"]
    for name, settings in [("TORCH_SDPA", {}), *(("FLASH_ATTN", one) for one in versions), ("SAGE_ATTN", {})]:
        probe = probe_backend(name, settings)
        if probe.available and (name == "TORCH_SDPA" or device == "cuda"):
            yield Candidate(name, settings, probe.kernel, probe.version)
        else:
            print(f"{name} {settings or ''} is not measured: {probe.reason or f'it does not run on {device}'}")


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables, for a while."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def run_suite(candidate: Candidate) -> str:
    """The last line of the suite's run on a backend; the whole of it is printed if something fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--fv-backend", candidate.name]
    variables = {f"FASTVIDEO_{candidate.name}_{key.upper()}": value for key, value in candidate.settings.items()}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:])
    return f"suite on {candidate.title}: {(done.stdout.strip().splitlines() or ['did not start'])[-1]}"


def direct_call(candidate: Candidate) -> Attend:
    """The kernel as its own documentation calls it."""
    module, _, name = candidate.kernel.rpartition(".")
    function = getattr(import_module(module), name)
    if module == "sageattention":
        return lambda q, k, v: function(q, k, v, tensor_layout="NHD")
    if candidate.name == "TORCH_SDPA" or module == "sageattn3":
        return lambda q, k, v: function(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
    return lambda q, k, v: function(q, k, v)


def core_call(candidate: Candidate) -> Attend:
    """The same kernel through the core, as a transformer's attention reaches it."""

    core = AttentionPass(candidate.name, TokenLayout((1, 1, 1)), settings=candidate.settings)

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with core:
            return core(q, k, v)

    return call


def time_kernels(found: list[Candidate], shape: tuple[int, ...], device: str, rounds: int) -> Table:
    """Each kernel called directly, and what the core adds."""
    batch, heads, tokens, head_dim = shape
    tensors = [torch.randn(batch, tokens, heads, head_dim, device=device, dtype=torch.bfloat16) for _ in range(3)]
    calls = {}
    for candidate in found:
        calls[candidate.title] = partial(direct_call(candidate), *tensors)
        calls[f"{candidate.title}, core"] = partial(core_call(candidate), *tensors)
    base = next(candidate.title for candidate in found if candidate.name == "TORCH_SDPA")
    with torch.inference_mode():
        seconds = alternate(in_the_middle(calls, base), device, rounds)
    work = 4 * batch * heads * tokens**2 * head_dim
    notes: dict[str, dict[str, Any]] = {name: {"TFLOP/s": work / median(seconds[name]) / 1e12} for name in seconds}
    for candidate in found:
        core = f"{candidate.title}, core"
        notes[core]["of the direct call"] = ratio(seconds[core], seconds[candidate.title])
    title = f"attention of (batch, heads, tokens, head_dim) = {shape} in bfloat16"
    return table(f"kernels {batch}x{heads}x{tokens}x{head_dim}", title, seconds, base, notes)


def time_forward(found: list[Candidate], quick: bool, device: str, rounds: int, compiled: bool) -> Table:
    """One forward pass of Wan 2.1 1.3B with random weights, bare and with each backend."""
    pipe = build_pipeline(quick, device)
    if compiled:
        pipe.transformer.compile_repeated_blocks(fullgraph=True, dynamic=False)
    latent = QUICK_LATENT if quick else LATENT
    ways = {candidate.title: Way(pipe, backend(candidate.name, **candidate.settings)) for candidate in found}
    ways |= {BARE: Way(pipe), "diffusers, cuDNN pinned": Way(pipe, diffusers_own("_native_cudnn"))}
    mode = "compiled" if compiled else "eager"
    title = f"one forward pass of {'a small Wan' if quick else 'Wan 2.1 1.3B'} on latents {latent} in bfloat16, {mode}"
    return in_ways(f"forward {mode}", title, ways, wan_inputs(pipe, latent, device), device, rounds)


def wan_inputs(pipe: Any, latent: tuple[int, ...], device: str) -> dict[str, Any]:
    """What WanPipeline calls its transformer with, for latents of that many frames, rows and columns."""
    width = pipe.transformer.config.text_dim
    return {
        "hidden_states": torch.randn(1, 16, *latent, device=device, dtype=torch.bfloat16),
        "timestep": torch.tensor([500.0], device=device),
        "encoder_hidden_states": torch.randn(1, 512, width, device=device, dtype=torch.bfloat16),
        "return_dict": False,
    }


def build_pipeline(quick: bool, device: str) -> Any:
    """A WanPipeline that has only a transformer: random weights at the size of Wan 2.1 1.3B, in the usual precision."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

    small = {"num_attention_heads": 2, "attention_head_dim": 64, "ffn_dim": 128, "num_layers": 2, "text_dim": 64}
    full = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30, "text_dim": 4096}
    torch.manual_seed(0)
    with torch.device(device):
        transformer = WanTransformer3DModel(in_channels=16, out_channels=16, freq_dim=256, **(small if quick else full))
    kept = set(transformer._keep_in_fp32_modules)
    for name, parameter in transformer.named_parameters():
        if not kept & set(name.split(".")):
            parameter.data = parameter.data.to(torch.bfloat16)
    parts = {"tokenizer": None, "text_encoder": None, "vae": None, "scheduler": FlowMatchEulerDiscreteScheduler()}
    return WanPipeline(transformer=transformer.eval(), **parts)


def describe(device: str) -> str:
    name = (
        torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    found = []
    for package in VERSIONS:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"{name}; Python {platform.python_version()}, {', '.join(found)}"


if __name__ == "__main__":
    main()
