"""How many requests `fv serve` answers while it makes a video, and what that costs the video.

Run: python benchmarks/serve.py [--rounds 5].

A server of its own and clients of their own, each a process; videos with and without clients in turns. Run with nothing
else on the machine; OMP_NUM_THREADS, below its cores, leaves one to the clients.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import click
import httpx
from serve_killed import Server

PROMPT = "a red circle moving left on a white background"
LOADS = (("retrieve", 10.0), ("create", 2.0), ("retrieve", 1e9), ("create", 1e9))
"""What is asked for, and how often a second."""
LATER = {"prompt": PROMPT, "num_inference_steps": 1, "num_frames": 1, "size": "32x32"}


def ask(address: str, kind: str, rate: float, ready: Any, begin: Any, end: Any, answered: Any) -> None:
    """Create, or retrieve, from the event `begin` to `end`; at most `rate` times a second."""
    with httpx.Client(base_url=address, timeout=60) as client:
        known = client.get("/v1/videos?limit=1").json()["data"][0]["id"]
        ready.set()
        begin.wait()
        count, start = 0, time.perf_counter()
        while not end.is_set():
            if kind == "create":
                client.post("/v1/videos", json=LATER).raise_for_status()
            else:
                client.get(f"/v1/videos/{known}").raise_for_status()
            count += 1
            time.sleep(max(0.0, start + count / rate - time.perf_counter()))
        answered.put(count / (time.perf_counter() - start))


def make(client: httpx.Client, steps: int, begin: Callable[[], None] = lambda: None) -> float:
    """The seconds that one video is denoised for; `begin` is called as soon as it is in progress."""
    body = {"prompt": PROMPT, "num_inference_steps": steps, "num_frames": 33, "size": "128x128"}
    video = client.post("/v1/videos", json=body).raise_for_status().json()["id"]
    while client.get(f"/v1/videos/{video}").json()["status"] == "queued":
        time.sleep(0.02)
    begin()
    while client.get(f"/v1/videos/{video}").json()["status"] != "completed":
        time.sleep(0.5)
    return float(client.get(f"/v1/videos/{video}/receipt").json()["seconds"]["denoise"])


def beside(client: httpx.Client, kind: str, rate: float, steps: int) -> tuple[float, float]:
    """Likewise while another process asks; and how often that was answered a second."""
    context = multiprocessing.get_context("spawn")
    ready, begin, end, answered = context.Event(), context.Event(), context.Event(), context.Queue()
    asking = context.Process(target=ask, args=(str(client.base_url), kind, rate, ready, begin, end, answered))
    asking.start()
    ready.wait()  # its start would be counted, too
    seconds = make(client, steps, begin.set)
    end.set()
    each = float(answered.get())
    asking.join()
    while page := client.get("/v1/videos?limit=100").json()["data"][1:]:
        for job in page:
            client.delete(f"/v1/videos/{job['id']}")
    return seconds, each


def cpu_per_request(client: httpx.Client, process: int, count: int = 500) -> float:
    """Seconds of a core that the server takes to answer a retrieve; whatever else the machine does."""
    known = client.get("/v1/videos?limit=1").json()["data"][0]["id"]
    before = cpu_seconds(process)
    for _ in range(count):
        client.get(f"/v1/videos/{known}").raise_for_status()
    return (cpu_seconds(process) - before) / count


def cpu_seconds(process: int) -> float:
    """Of all threads of a process, on Linux."""
    after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--steps", default=20, show_default=True)
@click.option("--fastest/--no-fastest", default=True, help="Also as many requests as are answered.")
def main(rounds: int, steps: int, fastest: bool) -> None:
    """Print the table."""
    threads = os.environ.get("OMP_NUM_THREADS") or os.cpu_count()
    cpu = next((line.split(":")[1].strip() for line in _cpu() if line.startswith("model name")), platform.machine())
    click.echo(
        f"{cpu}, {os.cpu_count()} cores, {threads} threads; torch {version('torch')}, fastapi {version('fastapi')}"
    )
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        server = Server("shapes", Path(name), "--max-queue", "1000000")
        try:
            client = stack.enter_context(httpx.Client(base_url=server.address(), timeout=600))
            make(client, 2)
            click.echo(f"a retrieve takes {1000 * cpu_per_request(client, server.process.pid):.2f} ms of a core")
            for kind, rate in LOADS[: None if fastest else 2]:
                alone, busy, answered = [], [], []
                for _ in range(rounds):
                    alone.append(make(client, steps))
                    seconds, each = beside(client, kind, rate, steps)
                    busy.append(seconds)
                    answered.append(each)
                pairs = [b / a for a, b in zip(alone, busy, strict=True)]
                click.echo(
                    f"{kind}, {'as fast as it goes' if rate > 1e6 else f'{rate:g} a second'}: {median(answered):.1f} "
                    f"answered a second; denoising {median(alone):.2f} s alone, {median(busy):.2f} s beside it, ratio "
                    f"{median(pairs):.3f} ({min(pairs):.3f} to {max(pairs):.3f})"
                )
        finally:
            server.kill()


def _cpu() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
