"""What processes do together in the tests: a run as one process makes it, and the same with all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from fastvideo_core import (
    AttentionBackend,
    AttentionCall,
    AttentionFunction,
    Capabilities,
    Need,
    Probe,
    Receipt,
    Role,
    Signal,
    TokenLayout,
    TokenOrder,
    attach,
)
from fastvideo_core.app import memory, vae_tiling
from fastvideo_core.discovery.plugins import load_plugins
from fastvideo_core.engine.attention.choice import choose_attention
from fastvideo_core.engine.attention.masks import MaskReader
from fastvideo_core.engine.attention.route import LoadedBackend, Route
from fastvideo_core.engine.parallel.degrees import Degrees
from fastvideo_core.engine.parallel.groups import HeldGroups
from fastvideo_core.engine.parallel.processes import Processes
from fastvideo_core.engine.parallel.share import Share
from fastvideo_core.errors import BackendOutputError, FastVideoError
from tests.support import conditioned, models, models_hunyuan, models_ltx, models_more, models_wan
from tests.support.policies import PIPELINES, Scripted

PADDING = 3


class PerHead(AttentionBackend):
    """Exact attention times a number for each layer and head, in an order of its own with padding."""

    name = "PER_HEAD"
    capabilities = Capabilities(roles=frozenset({Role.SELF, Role.JOINT}), lossless=True)
    table = torch.linspace(0.5, 1.5, 48).view(3, 16)

    def __init__(self, ordered: bool = True) -> None:
        super().__init__()
        self.ordered = ordered

    def probe(self) -> Probe:
        return Probe(True, kernel="per_head", version="1")

    def token_order(self, layout: TokenLayout, device: torch.device) -> TokenOrder | None:
        if not self.ordered:
            return None
        tokens = layout.grid[0] * layout.grid[1] * layout.grid[2]
        backwards = torch.arange(tokens - 1, -1, -1, device=device)
        return TokenOrder(torch.cat([backwards, backwards[:1].expand(PADDING)]), backwards)

    def load(self) -> AttentionFunction:
        return self._attend

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        assert call.layout is not None
        if call.layout.text_lengths is None:
            text = call.layout.text_before + call.layout.text_after
            tokens = call.layout.grid[0] * call.layout.grid[1] * call.layout.grid[2]
            assert key.shape[1] == tokens + text + PADDING * call.layout.ordered, (call.layout, key.shape)
        if call.layout.ordered:
            first = call.layout.text_before + call.layout.grid[0] * call.layout.grid[1] * call.layout.grid[2]
            key, value = (torch.cat([one[:, :first], one[:, first + PADDING :]], dim=1) for one in (key, value))
        q, k, v = (one.transpose(1, 2) for one in (query, key, value))
        result = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=call.scale).transpose(1, 2)
        of_head = self.table[call.layer % 3, : self.model_heads][call.heads]
        assert len(of_head) == query.shape[2], (call.heads, query.shape)
        return result * of_head[:, None]

    model_heads = 2


@dataclass
class Deciding(Scripted):
    """Skips by what it sees: a policy whose decision would differ wherever the signal does."""

    threshold: float = 0.5

    def start(self, branch: Any) -> Any:
        return {}

    def decide(self, step: Any, state: Any) -> Any:
        from fastvideo_core import Action, relative_change

        before, state["before"] = state.get("before"), step.signal.clone()
        if before is None or step.index == step.num_steps - 1:
            return Action.COMPUTE
        return Action.REUSE if relative_change(step.signal, before) < self.threshold else Action.COMPUTE


@dataclass(frozen=True)
class Case:
    """A run: a model, what is attached, and how it is shared."""

    model: str
    parallel: Any
    backend: Callable[[], Any] = lambda: "TORCH_SDPA"
    policy: Callable[[], Any] = lambda: None
    options: dict[str, Any] = field(default_factory=dict)
    config: Any = None
    compiled: bool = False


def difference(size: int, name: str) -> tuple[float, float, Receipt | None, Receipt]:
    """How far the latents are from those of one process, of the largest; a number for them; both receipts.

    The first process alone computes what one process makes.
    """
    return compared(cases(size)[name], *MODELS[cases(size)[name].model])


def compared(
    case: Case, build: Callable[[], Any], own: dict[str, Any], run: Callable[..., Any] = models.run_to_latents
) -> tuple[float, float, Receipt | None, Receipt]:
    """As `difference`, of a case, what builds its pipeline, what that is called with, and what calls it."""
    pipe = build()
    pipe.set_progress_bar_config(disable=True)
    if case.compiled:
        pipe.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    options = {**own, **case.options}
    alone = expected = None
    if dist.get_rank() == 0:
        alone, expected = _run(pipe, case, options, None, run)
    found, latents = _run(pipe, case, options, case.parallel, run)
    worst = float(np.abs(latents - expected).max() / np.abs(expected).max()) if expected is not None else 0.0
    return worst, float(np.abs(latents).sum()), alone, found


def _run(
    pipe: Any, case: Case, options: dict[str, Any], parallel: Any, run: Callable[..., Any] = models.run_to_latents
) -> tuple[Receipt, Any]:
    with ExitStack() as stack:
        attached = stack.enter_context(
            attach(
                pipe,
                attention_backend=case.backend(),
                attention_config=case.config,
                cache=case.policy(),
                parallel=parallel,
            )
        )
        latents = run(pipe, **options)
        return attached.receipt, latents


MODELS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    **PIPELINES,
    **{name: conditioned.CONDITIONED[name] for name in ("HunyuanVideoImageToVideo", "WanVideoToVideo")},
    "HunyuanVideo token replace": conditioned.TOKEN_REPLACE,
    "Wan 2.1 uneven": (models.build_wan_pipeline, {"height": 48, "width": 48}),
    "Wan VACE": models_wan.WANS["VACE"],
    "Framepack": (models_hunyuan.build_framepack_pipeline, {}),
    "Kandinsky 5": models_more.MORE["Kandinsky 5"],
}

PLANNED = partial(Scripted, "CCRCFC", ahead=True)
DECIDING = partial(Deciding, signal=Signal.MODULATED_INPUT)
FIRST_BLOCK = partial(Deciding, signal=Signal.FIRST_BLOCK_OUTPUT)
TOGETHER = partial(Deciding, signal=Signal.HIDDEN, branches_decide_together=True, threshold=0.2)
FORECASTING = partial(Scripted, "CCFRCF", first_blocks=1)
SIX_STEPS = {"num_inference_steps": 6}


def _of_a_model(model: str, parallel: Any) -> dict[str, Case]:
    """A model with every kind of policy, and a backend with an order and a table per head."""
    return {
        f"{model}, {parallel}, {name}": Case(model, parallel, backend, policy, options)
        for name, backend, policy, options in (
            ("plain", lambda: "TORCH_SDPA", lambda: None, {}),
            ("planned, in its own order", PerHead, PLANNED, SIX_STEPS),
            ("deciding, a table per head", partial(PerHead, False), DECIDING, SIX_STEPS),
            ("forecasting, in its own order", PerHead, FORECASTING, SIX_STEPS),
        )
    }


def cases(size: int) -> dict[str, Case]:
    """What that many processes run."""
    sequence: dict[str, int] = {"sequence": size}
    halves = {"sequence": size // 2, "guidance": 2}
    found: dict[str, Case] = {}
    for model in PIPELINES if size == 2 else ("Wan 2.1", "HunyuanVideo", "Mochi") if size == 3 else ():
        found |= _of_a_model(model, sequence)
    if size % 2 == 0:
        of_halves = ("Wan 2.1", "LTX-Video", "CogVideoX", "Mochi") if size == 2 else ("Wan 2.2", "Mochi")
        for model in of_halves:
            found |= _of_a_model(model, halves)
        decided = {"together": TOGETHER, "behind the first block": FIRST_BLOCK}
        for name, policy in decided.items():
            found[f"halves, decided {name}"] = Case("Wan 2.1", halves, policy=policy, options=SIX_STEPS)
    found["uneven"] = Case("Wan 2.1 uneven", sequence, PerHead)
    found["first frame modulated otherwise"] = Case("HunyuanVideo token replace", sequence)
    found["two branches without names"] = Case("WanVideoToVideo", "auto", policy=PLANNED, options=SIX_STEPS)
    found["auto without guidance"] = Case("HunyuanVideo", "auto")
    found["auto with guidance"] = Case("Wan 2.1", "auto")
    found["a list of prompts"] = Case("LTX-Video", "auto", options={"prompt": ["cat", "dog"], "negative_prompt": None})
    found["several videos a prompt"] = Case("CogVideoX", sequence, options={"num_videos_per_prompt": 2})
    if size == 2:
        sta = {"tile": (2, 8, 8), "window": (1, 1, 3), "dense": 0.0}
        size_of_tiles = {"height": 144, "width": 400, "num_inference_steps": 1}
        for model in ("Wan 2.1", "HunyuanVideo"):
            found[f"STA, {model}"] = Case(
                model, sequence, lambda: "SLIDING_TILE_ATTN", options=size_of_tiles, config=sta
            )
        for model in ("Wan VACE", "Kandinsky 5"):
            found[f"guidance alone, {model}"] = Case(model, halves, policy=PLANNED, options=SIX_STEPS)
        found["compiled"] = Case("Wan 2.1", sequence, PerHead, compiled=True)
        found["compiled halves"] = Case("Wan 2.1", halves, PerHead, compiled=True)
    return found


def run_model(model: str, parallel: Any) -> Receipt:
    """A run of one of the models; the receipt."""
    build, options = MODELS[model]
    return _run(build(), Case(model, parallel), options, parallel)[0]


def run_ltx_from_images(parallel: Any) -> None:
    """A run of LTX-Video whose video tokens have those of images before them."""
    pipe = models_ltx.build_ltx_condition_pipeline()
    with attach(pipe, parallel=parallel):
        models_ltx.run_ltx(pipe, conditions=models_ltx.conditions(0, 8))


def decides_on_tiles(rank: int) -> tuple[bool, bool]:
    """Whether it decodes in tiles where the video would fit in all processes, and where not in one of them."""
    pipe = models.build_wan_pipeline()
    used = []
    with attach(pipe, parallel={"sequence": dist.get_world_size()}) as fv:
        for room in (10**15, 1 if dist.get_rank() == rank else 10**15):
            setattr(vae_tiling, "free_memory", lambda device, room=room: room)  # noqa: B010
            tiling = vae_tiling.Tiling(None, fv.anywhere)
            with tiling.applied(pipe):
                pipe.vae.decode(torch.zeros(1, 16, 1, 4, 6))
            used.append(tiling.used)
    setattr(vae_tiling, "free_memory", memory.free_memory)  # noqa: B010
    return used[0], used[1]


def attach_to_wan(parallel: Any = "auto", **options: Any) -> Receipt:
    """A run of Wan 2.1; the receipt."""
    pipe = models.build_wan_pipeline()
    pipe.set_progress_bar_config(disable=True)
    with attach(pipe, attention_backend="TORCH_SDPA", parallel=parallel) as fv:
        models.run_to_latents(pipe, **options)
        return fv.receipt


def each_its_own_size() -> Receipt:
    """One process is called with another size than the other."""
    return attach_to_wan(height=32 + 16 * dist.get_rank())


def each_its_own_latents() -> float:
    """No generator is given, so that each process would draw latents of its own; a number for what came out."""
    pipe = models.build_wan_pipeline()
    pipe.set_progress_bar_config(disable=True)
    torch.manual_seed(dist.get_rank())
    with attach(pipe, attention_backend="TORCH_SDPA", parallel="auto"):
        return float(pipe("cat", output_type="latent", **models.SIZE).frames.double().sum())


class Failing(PerHead):
    """Raises in one of the processes, or never comes back there."""

    name = "FAILING"

    def __init__(self, rank: int, sleeps: float = 0.0) -> None:
        super().__init__(ordered=False)
        self._rank, self._sleeps = rank, sleeps

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        if call.step == 1 and dist.get_rank() == self._rank:
            time.sleep(self._sleeps)
            raise BackendOutputError("the kernel broke")
        return super()._attend(query, key, value, call)


def come_late(seconds: float, limit: float) -> tuple[BaseException | None, float, Receipt]:
    """As `fail_and_go_on`, where the second process sleeps so many seconds, and the first waits up to the limit."""
    before = os.environ["FASTVIDEO_PARALLEL_TIMEOUT"]
    os.environ["FASTVIDEO_PARALLEL_TIMEOUT"] = str(limit)
    HeldGroups.of_process().leave()  # groups keep the limit that they were made with
    try:
        return fail_and_go_on(1, seconds)
    finally:
        os.environ["FASTVIDEO_PARALLEL_TIMEOUT"] = before
        HeldGroups.of_process().leave()


def fail_and_go_on(rank: int, sleeps: float = 0.0) -> tuple[BaseException | None, float, Receipt]:
    """A run that fails in one process, how long it took, and one on the same attachment that does not."""
    pipe = models.build_wan_pipeline()
    pipe.set_progress_bar_config(disable=True)
    error = None
    with attach(pipe, attention_backend=Failing(rank, sleeps), parallel="auto") as fv:
        began = time.monotonic()
        try:
            models.run_to_latents(pipe)
        except FastVideoError as problem:
            error = problem
        took = time.monotonic() - began
        models.run_to_latents(pipe, num_inference_steps=1)
        return error, took, fv.receipt


def timed() -> tuple[float, Receipt]:
    """Seconds in the kernels, and the receipt of a run that was timed."""
    pipe = models.build_wan_pipeline()
    pipe.set_progress_bar_config(disable=True)
    with attach(pipe, attention_backend="TORCH_SDPA", parallel={"sequence": 2}) as fv, fv.timed() as seconds:
        models.run_to_latents(pipe)
        return seconds(), fv.receipt


def refuses_others() -> None:
    """A policy that needs the residual of the other branch."""
    pipe = models.build_wan_pipeline()
    with attach(pipe, cache=Scripted("CCC", sees_others=True), parallel={"guidance": 2}):
        models.run_to_latents(pipe)


def diffusers_own() -> None:
    """diffusers' parallelism is on."""
    from diffusers import ContextParallelConfig

    pipe = models.build_wan_pipeline()
    for module in pipe.transformer.modules():
        if hasattr(module, "processor"):
            module.processor._parallel_config = ContextParallelConfig(ulysses_degree=2)
    attach(pipe, parallel="auto")


def decode_in_tiles(model: str) -> tuple[bool, float, int]:
    """Whether a video decoded in tiles by all is that of one process; a number for it; bytes that were sent."""
    build, _ = MODELS[model]
    pipe = build()
    size = 64 if model == "LTX-Video" else 32
    strides = {"tile_sample_stride_height": size // 2} if model != "CogVideoX" else {}
    pipe.vae.enable_tiling(tile_sample_min_height=size, tile_sample_min_width=size, **strides)
    torch.manual_seed(5)
    channels = pipe.vae.config.get("z_dim") or pipe.vae.config.latent_channels
    latents = torch.randn(1, channels, 3, 6, 7)
    more = {"temb": None} if model == "LTX-Video" else {}
    with torch.no_grad():
        alone = pipe.vae.decode(latents, return_dict=False, **more)[0]
        with attach(pipe, attention_backend="TORCH_SDPA", parallel={"sequence": dist.get_world_size()}) as fv:
            shared = pipe.vae.decode(latents, return_dict=False, **more)[0]
            sent = fv._crew.processes.traffic.sent  # type: ignore[union-attr]
        after = pipe.vae.decode(latents, return_dict=False, **more)[0]
    return torch.equal(alone, shared) and torch.equal(alone, after), float(shared.double().sum()), sent


class Wilful(Scripted):
    """Skips every other step in the first process, and never in the others."""

    def decide(self, step: Any, state: Any) -> Any:
        from fastvideo_core import Action

        return Action.REUSE if step.index % 2 and dist.get_rank() == 0 else Action.COMPUTE


def the_others_go_astray() -> tuple[bool, dict[str, str]]:
    """Whether the first process has the video of one, when the others decide otherwise and lose their latents."""

    def spoil(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        return {"latents": values["latents"] * 0} if dist.get_rank() else {}

    case = Case("Wan 2.1", {"sequence": dist.get_world_size()}, policy=Wilful)
    pipe = models.build_wan_pipeline()
    pipe.set_progress_bar_config(disable=True)
    expected = _run(pipe, case, SIX_STEPS, None)[1] if dist.get_rank() == 0 else 0
    receipt, latents = _run(pipe, case, {**SIX_STEPS, "callback_on_step_end": spoil}, case.parallel)
    assert receipt.cache is not None
    return bool(np.array_equal(latents, expected)), receipt.cache.schedule


CUTS = [(4, 4, 7, 0, 0), (6, 2, 8, 2, 3), (4, 2, 5, 0, 4), (2, 1, 9, 3, 0), (5, 5, 6, 1, 1)]
"""Heads of queries, and of keys; video tokens; text before and behind them."""


def attention_in_parts() -> list[float]:
    """How far attention that processes share is from that of one, with a mask for each head."""
    need = Need(Role.JOINT, 8, "float32", "cpu")
    resolution = choose_attention(load_plugins(), "TORCH_SDPA", [need], None)[1][Role.JOINT]
    processes = Processes(torch.device("cpu"))
    peers = processes.team(Degrees(processes.size), None).sequence
    worst = []
    for heads, of_keys, tokens, before, behind in CUTS:
        torch.manual_seed(heads)
        length = before + tokens + behind
        query, key, value = (torch.randn(2, length, count, 8) for count in (heads, of_keys, of_keys))
        mask = torch.rand(2, heads, length, length) > 0.3
        mask |= torch.eye(length, dtype=torch.bool)
        route = Route(LoadedBackend.load(resolution), MaskReader(), 1)
        route.start_pass(0, "", TokenLayout((1, 1, tokens), before, behind))
        whole = route(query, key, value, mask)
        start, stop = peers.bounds(tokens)
        own = [*range(before), *range(before + start, before + stop), *range(before + tokens, length)]
        shared = Share(peers, None, tokens).attend(
            route, query[:, own], key[:, own], value[:, own], mask, None, layer=0, entry=None
        )
        worst.append(float((shared - whole[:, own]).abs().max()))
    return worst
