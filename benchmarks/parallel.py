"""What more GPUs gain: torchrun --nproc-per-node 2 benchmarks/parallel.py [--quick] [--eager] [--backend FLASH_ATTN].

A full-size Wan 2.1 1.3B with random weights denoises 81 frames of 480x832 with guidance: in one process (all of them do
the same beside one another), then shared by sequence, and by guidance. The random weights are the same in each process.

Then the cost of what is sent: the bandwidth of the two collectives at the sizes of this model is measured, and the
share of a step that they take on 2, 4 and 8 GPUs is computed from it, for this model and, with --large-seconds, for the
14B at 720p. A row says "measured" where this run had as many processes, and "computed" elsewhere: the time of one
process, divided, plus the bytes over the bandwidth; that leaves out what is not divided (text, embeddings, the first
step of guidance).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import click
import torch
import torch.distributed as dist
from attention import LATENT, QUICK_LATENT, build_pipeline, describe
from results import Results
from results import table as table_of

from fastvideo_core import attach

PASSES_A_STEP = 2


@dataclass(frozen=True)
class Model:
    """What decides how much is sent: video tokens, layers, and channels of the hidden states."""

    name: str
    tokens: int
    layers: int
    channels: int

    def sent(self, sequence: int) -> float:
        """Bytes in bfloat16 that a process sends in a forward pass: four tensors a layer, and its tokens at the end."""
        piece = 2 * self.tokens * self.channels / sequence
        return (4 * self.layers / sequence + 1) * piece * (sequence - 1)


WAN_SMALL = Model("Wan 2.1 1.3B, 81 frames of 480x832", 32760, 30, 1536)
WAN_LARGE = Model("Wan 2.1 14B, 81 frames of 720x1280", 75600, 40, 5120)


@click.command()
@click.option("--processes", default=2, show_default=True, help="To start, where torchrun has not.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--quick", is_flag=True, help="A small model, to try the script.")
@click.option("--compiled/--eager", default=True, show_default=True)
@click.option("--backend", default="TORCH_SDPA", show_default=True, help="Such as FLASH_ATTN.")
@click.option("--steps", default=50, show_default=True)
@click.option("--large-seconds", type=float, help="A forward pass of the 14B at 720p on one GPU, to compute its rows.")
def main(
    processes: int, device: str, quick: bool, compiled: bool, backend: str, steps: int, large_seconds: float | None
) -> None:
    """Print seconds for one process and for all, and a table of what is sent."""
    if "RANK" not in os.environ:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *sys.argv]
        raise SystemExit(subprocess.run(command, check=False).returncode)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    say = print if dist.get_rank() == 0 else lambda *parts, **more: None
    size = dist.get_world_size()
    pipe = build_pipeline(quick, device)
    pipe.set_progress_bar_config(disable=True)
    if compiled:
        pipe.transformer.compile_repeated_blocks(fullgraph=True, dynamic=False)  # each way to share has its own size
    runs: dict[str, Any] = {"one process": None, f"sequence {size}": {"sequence": size}}
    if size % 2 == 0:
        runs[f"guidance 2 x sequence {size // 2}"] = {"sequence": size // 2, "guidance": 2}
    say(f"{describe(device)}; {size} processes; {backend}, {'compiled' if compiled else 'eager'}, {steps} steps")
    results = Results("parallel", device)
    measured: dict[str, float] = {}
    for name, parallel in runs.items():
        denoise(pipe, quick, device, backend, parallel, 3)
        seconds, receipt = denoise(pipe, quick, device, backend, parallel, steps)
        measured[name] = seconds
        gain = measured["one process"] / seconds
        sent = receipt.parallel.ranks[-1].bytes_sent if receipt.parallel else 0
        say(
            f"  {name:24} {seconds:8.2f} s, {1e3 * seconds / steps / PASSES_A_STEP:8.1f} ms a forward pass, "
            f"{gain:5.3f} times as fast, {sent / 2**30:.2f} GiB sent by the last process",
            flush=True,
        )
    exchange, gather = bandwidths(quick, device)
    if dist.get_rank() == 0 and not quick:
        title = f"{steps} steps of Wan 2.1 1.3B, {size} processes, {backend}, {'compiled' if compiled else 'eager'}"
        seconds_of = {name: [seconds] for name, seconds in measured.items()}
        bandwidth = {"all_to_all, GB/s": exchange / 1e9, "all_gather, GB/s": gather / 1e9}
        results.add(table_of(f"{size} processes", title, seconds_of, "one process", dict.fromkeys(measured, bandwidth)))
        results.write()
    say(f"  all_to_all {exchange / 1e9:.1f} GB/s, all_gather {gather / 1e9:.1f} GB/s sent by each process")
    passes = {WAN_SMALL: measured["one process"] / steps / PASSES_A_STEP}
    if large_seconds:
        passes[WAN_LARGE] = large_seconds
    if not quick:
        for model, seconds in passes.items():
            table(model, seconds, exchange, measured if model is WAN_SMALL else {}, steps, say)
    dist.destroy_process_group()


def denoise(pipe: Any, quick: bool, device: str, backend: str, parallel: Any, steps: int) -> tuple[float, Any]:
    """Seconds of the denoising loop, of the slowest process, and the receipt."""
    frames, height, width = QUICK_LATENT if quick else LATENT
    torch.manual_seed(1)
    text = torch.randn(1, 512, pipe.transformer.config.text_dim, device=device, dtype=torch.bfloat16)
    with attach(pipe, attention_backend=backend, cache="none", parallel=parallel) as fv, torch.no_grad():
        dist.barrier()
        pipe(
            prompt_embeds=text,
            negative_prompt_embeds=-text,
            height=height * 8,
            width=width * 8,
            num_frames=(frames - 1) * 4 + 1,
            num_inference_steps=steps,
            generator=torch.Generator("cpu").manual_seed(0),
            output_type="latent",
        )
        receipt = fv.receipt
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, receipt.seconds["denoise"])
    return max(every), receipt


def bandwidths(quick: bool, device: str, rounds: int = 20) -> tuple[float, float]:
    """Bytes a second that each process sends to others, in an all_to_all of a layer's query and in an all_gather."""
    size = dist.get_world_size()
    length = (1 << 16 if quick else WAN_SMALL.tokens * WAN_SMALL.channels) // size // size * size
    piece = torch.zeros(length, dtype=torch.bfloat16, device=device)
    other, every = torch.empty_like(piece), piece.new_empty(size * length)
    lists = list(every.chunk(size))
    sent = {
        "all_to_all": (lambda: dist.all_to_all_single(other, piece), 2 * length * (size - 1) / size),
        "all_gather": (lambda: dist.all_gather(lists, piece), 2 * length * (size - 1)),
    }
    found = []
    for call, count in sent.values():
        seconds = []
        for number in range(rounds + 3):
            taken = timed(call, device)
            if number >= 3:
                seconds.append(taken)
        found.append(count / median(seconds))
    return found[0], found[1]


def timed(call: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def table(
    model: Model, seconds: float, bandwidth: float, measured: dict[str, float], steps: int, say: Callable[..., None]
) -> None:
    """A row for each number of GPUs and each way to share; `seconds` is a forward pass on one."""
    step = PASSES_A_STEP * seconds
    say(f"\n  {model.name}: a step takes {step:.3f} s on one GPU")
    say("  | GPUs | guidance x sequence | GB sent a step | s a step | times as fast | sending | |")
    say("  |---|---|---|---|---|---|---|")
    for gpus in (2, 4, 8):
        for guidance in (1, 2):
            sequence = gpus // guidance
            passes = PASSES_A_STEP // guidance
            sent = passes * model.sent(sequence)
            sending = sent / bandwidth
            total, kind = step / gpus + sending, "computed"
            name = f"sequence {sequence}" if guidance == 1 else f"guidance 2 x sequence {sequence}"
            if name in measured:
                total, kind = measured[name] / steps, "measured"
            say(
                f"  | {gpus} | {guidance} x {sequence} | {sent / 1e9:.2f} | {total:.3f} | {step / total:.2f} "
                f"| {100 * sending / total:.1f} % | {kind} |"
            )


if __name__ == "__main__":
    main()
