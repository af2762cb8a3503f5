"""Memory and speed of real models with random weights: python benchmarks/models.py [--only NAME …] (needs a GPU).

Each model is built on the GPU from its published configuration, in bfloat16 with the autoencoder in float32: no hub is
asked. For every way to keep the weights, a process of its own measures the peak of the allocator while the text encoder
reads a prompt, in a step of the transformer and in a decode, with all parts there; also each with nothing else there.
Seconds per step are of the bare transformer and of the attached one in turns. `--tiny` tries the script with small
models on any machine. Results go to a JSON file as they come; in the end, tables of all that it holds go to results/.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import click
import torch
from configurations import MODELS, Part
from diffusers.hooks import apply_group_offloading
from model_tables import WAYS, gib, listings
from results import Results

from fastvideo_core import attach, written_whole
from fastvideo_core.errors import FastVideoError

OFFLOADED = {
    "dit offload": ("transformer",),
    "text offload": ("text_encoder",),
    "vae offload": ("vae",),
    "all offload": ("transformer", "text_encoder", "vae"),
}
STEPPED = ("whole", "dit offload")
"""The ways whose seconds per step are measured."""
OUT_OF_MEMORY = "out of memory"

SHOWN = {
    "Wan 2.1 1.3B": ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", (81, 480, 832)),
    "Wan 2.2 A14B": ("Wan-AI/Wan2.2-T2V-A14B-Diffusers", (81, 480, 832)),
    "HunyuanVideo": ("hunyuanvideo-community/HunyuanVideo", (129, 544, 960)),
    "HunyuanVideo-1.5": ("hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v", (121, 480, 848)),
    "LTX-2": ("Lightricks/LTX-2", (121, 512, 768)),
}
"""By a short name: the preset, and frames, height and width of a video."""

_TINY_T5 = {"d_model": 32, "d_ff": 32, "d_kv": 8, "num_heads": 2, "num_layers": 1, "vocab_size": 32}
_TINY_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 32,
}
TINY: dict[str, dict[str, dict[str, Any]]] = {
    "Wan 2.1 1.3B": {
        "transformer": {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 1,
            "ffn_dim": 32,
            "text_dim": 32,
        },
        "text_encoder": _TINY_T5,
        "vae": {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
    },
    "HunyuanVideo": {
        "transformer": {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "text_embed_dim": 32,
            "pooled_projection_dim": 32,
            "rope_axes_dim": (4, 6, 6),
        },
        "text_encoder": _TINY_TEXT,
        "text_encoder_2": {**_TINY_TEXT, "projection_dim": 32, "num_key_value_heads": None},
        "vae": {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 2},
    },
    "HunyuanVideo-1.5": {
        "transformer": {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 1,
            "num_refiner_layers": 1,
            "text_embed_dim": 32,
            "text_embed_2_dim": 32,
            "image_embed_dim": 16,
            "rope_axes_dim": (4, 6, 6),
        },
        "text_encoder": {**_TINY_TEXT, "hidden_size": 256},
        "text_encoder_2": _TINY_T5,
        "vae": {"block_out_channels": (16, 16, 16, 16, 16), "layers_per_block": 1, "latent_channels": 8},
    },
    "LTX-2": {
        "transformer": {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "cross_attention_dim": 32,
            "audio_num_attention_heads": 2,
            "audio_attention_head_dim": 8,
            "audio_cross_attention_dim": 16,
            "num_layers": 1,
            "caption_channels": 32,
        },
        "text_encoder": {
            "text_config": {**_TINY_TEXT, "head_dim": 16},
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
            "mm_tokens_per_image": 4,
        },
        "vae": {
            "block_out_channels": (8, 16, 32, 64),
            "decoder_block_out_channels": (8, 16, 32),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1),
            "latent_channels": 8,
        },
    },
}
TINY["Wan 2.2 A14B"] = TINY["Wan 2.1 1.3B"] | {"transformer_2": TINY["Wan 2.1 1.3B"]["transformer"]}
SMALL_SIZE = (9, 64, 96)


class Bench:
    """A model's parts on a device, and calls of each by itself.

    Args:
        frames_height_width: of the video.
    """

    def __init__(self, name: str, tiny: bool, device: torch.device) -> None:
        self.name, self.device, self.dtype = name, device, torch.bfloat16 if device.type == "cuda" else torch.float32
        preset, size = SHOWN[name]
        self.size = SMALL_SIZE if tiny else size
        parts = MODELS[preset]
        if tiny:
            parts = {
                key: Part(part.kind, {**part.config, **TINY[name][key]})
                for key, part in parts.items()
                if key in TINY[name]
            }
        self.parts = {key: part for key, part in parts.items() if key not in ("audio_vae", "vocoder")}
        self.modules: dict[str, Any] = {}
        self.tiny = tiny

    def build(self, names: Sequence[str], place: torch.device | None = None) -> None:
        """Make parts, with random weights."""
        for name in names:
            self.modules[name] = self._made(name, self.parts[name], place or self.device)

    def _made(self, name: str, part: Part, place: torch.device) -> Any:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32 if name == "vae" else self.dtype)
        try:
            with torch.device(place), _quick_init(place):
                made: Any = part.build().requires_grad_(False)
                if hasattr(made, "tie_weights"):
                    made.tie_weights()
                return made
        finally:
            torch.set_default_dtype(before)

    def read(self) -> None:
        """The text encoders read a prompt of the length that the pipeline pads to."""
        for name, module in self.modules.items():
            if name.startswith("text_encoder"):
                length = 16 if self.tiny else {"LTX-2": 1024, "HunyuanVideo-1.5": 1000}.get(self.name, 512)
                if type(module).__name__ == "CLIPTextModel":
                    length = 16 if self.tiny else 77
                ids = torch.ones(1, length, dtype=torch.long, device=self.device)
                module(input_ids=ids, attention_mask=torch.ones_like(ids))

    def denoise(self) -> None:
        """A pass of the transformer; of the first expert of two."""
        self.modules["transformer"](**self.arguments(), return_dict=False)

    def decode(self) -> None:
        """The autoencoder decodes the video."""
        vae, (frames, height, width) = self.modules["vae"], self.latent_size()
        channels = vae.config.get("z_dim") or vae.config.latent_channels
        vae.decode(torch.zeros(1, channels, frames, height, width, device=self.device), return_dict=False)

    def latent_size(self) -> tuple[int, int, int]:
        frames, height, width = self.size
        spatial, temporal = {"LTX-2": (32, 8), "HunyuanVideo-1.5": (16, 4)}.get(self.name, (8, 4))
        return (frames - 1) // temporal + 1, height // spatial, width // spatial

    def arguments(self) -> dict[str, Any]:
        """What the pipeline gives its transformer, in size and kind."""
        config = self.modules["transformer"].config
        frames, height, width = self.latent_size()

        def noise(*shape: int) -> torch.Tensor:
            return torch.randn(shape, device=self.device, dtype=self.dtype)

        def ones(*shape: int) -> torch.Tensor:
            return torch.ones(shape, device=self.device, dtype=torch.long)

        time_ = torch.full((1,), 500.0, device=self.device)
        video = noise(1, config.in_channels, frames, height, width)
        if self.name.startswith("Wan"):
            return {"hidden_states": video, "timestep": time_, "encoder_hidden_states": noise(1, 512, config.text_dim)}
        if self.name == "HunyuanVideo":
            return {
                "hidden_states": video,
                "timestep": time_.to(self.dtype),
                "encoder_hidden_states": noise(1, 256, config.text_embed_dim),
                "encoder_attention_mask": ones(1, 256),
                "pooled_projections": noise(1, config.pooled_projection_dim),
                "guidance": torch.full((1,), 6000.0, device=self.device, dtype=self.dtype),
            }
        if self.name == "HunyuanVideo-1.5":
            return {
                "hidden_states": video,
                "timestep": time_.to(self.dtype),
                "encoder_hidden_states": noise(1, 1000, config.text_embed_dim),
                "encoder_attention_mask": ones(1, 1000),
                "encoder_hidden_states_2": noise(1, 256, config.text_embed_2_dim),
                "encoder_attention_mask_2": ones(1, 256),
                "image_embeds": torch.zeros(1, 729, config.image_embed_dim, device=self.device, dtype=self.dtype),
            }
        sound = 126 if not self.tiny else 4
        return {
            "hidden_states": noise(1, frames * height * width, config.in_channels),
            "audio_hidden_states": noise(1, sound, config.audio_in_channels),
            "encoder_hidden_states": noise(1, 1024, config.caption_channels),
            "audio_encoder_hidden_states": noise(1, 1024, config.caption_channels),
            "timestep": torch.full((1, frames * height * width), 500.0, device=self.device),
            "audio_timestep": torch.full((1, sound), 500.0, device=self.device),
            "sigma": time_,
            "encoder_attention_mask": None,
            "audio_encoder_attention_mask": None,
            "num_frames": frames,
            "height": height,
            "width": width,
            "fps": 24.0,
            "audio_num_frames": sound,
        }

    def prepare(self, way: str, only: str | None = None) -> None:
        """Build everything, or that part, and keep the weights in that way."""
        cpu, offloaded = torch.device("cpu"), OFFLOADED.get(way, ())
        for name in self.parts if only is None else (only,):
            away = bool(offloaded) and name.startswith(offloaded)
            rounded = way in ("torchao int8", "nf4") and name.startswith(("transformer", "text_encoder"))
            self.build([name], cpu if away or rounded else self.device)
            module = self.modules[name]
            if rounded:
                _round(module, way, self.device, self.dtype)
                module.to(self.device)
            if way == "fp8" and name.startswith("transformer"):
                module.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=self.dtype)
            if away:
                apply_group_offloading(module, self.device, cpu, offload_type="leaf_level", use_stream=False)
        if way != "whole" and "vae" in self.modules:
            self.modules["vae"].enable_tiling()


@contextlib.contextmanager
def _quick_init(place: torch.device) -> Iterator[None]:
    """Weights by one fill in place of what each library draws, which takes minutes for 14 billion numbers.

    On a GPU they are random; a CPU, where weights only wait, gets constants. Text encoders get what the memory had.
    """
    from torch.nn import init
    from transformers.initialization import no_init_weights

    def plain(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        with torch.no_grad():
            if tensor.ndim < 2:
                return tensor.zero_()
            return tensor.normal_(0, 0.02) if place.type == "cuda" else tensor.fill_(0.01)

    names = ("kaiming_uniform_", "xavier_uniform_", "trunc_normal_", "normal_", "uniform_")
    with no_init_weights():
        own = {name: getattr(init, name) for name in names}
        for name in names:
            setattr(init, name, plain)
        try:
            yield
        finally:
            for name, function in own.items():
                setattr(init, name, function)


def _round(module: Any, way: str, device: torch.device, dtype: torch.dtype) -> None:
    """On the GPU layer by layer, so that the weights are never whole there."""
    if way == "torchao int8":
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(module, Int8WeightOnlyConfig(), device=device)
        return
    from bitsandbytes import nn

    whole = getattr(module, "_keep_in_fp32_modules", None) or ()  # which diffusers does not round, either
    for name, layer in list(module.named_modules()):
        if type(layer) is torch.nn.Linear and not any(part in name for part in whole):
            new: Any = nn.Linear4bit(
                layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=dtype, quant_type="nf4"
            )
            new.weight = nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
            new.bias = layer.bias
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, new.to(device))


def peaks(name: str, way: str, tiny: bool, device: torch.device) -> dict[str, Any]:
    """Peaks in bytes: of each part by itself with nothing else there, and of a run with all parts there."""
    found: dict[str, Any] = {}
    run = Bench(name, tiny, device)
    with torch.inference_mode():
        if way == "whole":
            found["alone"] = dict(_alone(name, tiny, device))
        with contextlib.suppress(torch.OutOfMemoryError):
            found.update(_together(run, way, device))
            return found
    return {**found, OUT_OF_MEMORY: True}


def _together(run: Bench, way: str, device: torch.device) -> dict[str, int]:
    """The peak of each part with all of them there, and of the run."""
    _reset(device)
    run.prepare(way)
    found = {"weights": _now(device)}
    calls: dict[str, Callable[[], None]] = {"text": run.read, "denoise": run.denoise, "decode": run.decode}
    for part, call in calls.items():
        _reset(device)
        call()
        _wait(device)
        found[part] = _peak(device)
    return {**found, "peak": max(found[part] for part in calls)}


def speed(name: str, way: str, tiny: bool, device: torch.device, rounds: int) -> dict[str, Any]:
    """Seconds per step with the transformer alone on the device, or coming to it layer by layer."""
    run = Bench(name, tiny, device)
    with torch.inference_mode():
        run.prepare(way, only="transformer")
        return {"step": _steps(run, rounds)}


def _alone(name: str, tiny: bool, device: torch.device) -> Iterator[tuple[str, int]]:
    """The peak of each part with nothing else on the device, weights included; of the decode also in tiles."""
    parts = {"text": "text_encoder", "denoise": "transformer", "decode": "vae", "decode in tiles": "vae"}
    for part, only in parts.items():
        bench = Bench(name, tiny, device)
        try:
            bench.build([name for name in bench.parts if name.startswith(only)])
            if part == "decode in tiles":
                bench.modules["vae"].enable_tiling()
            _reset(device)
            {"text": bench.read, "denoise": bench.denoise}.get(part, bench.decode)()
            _wait(device)
            yield part, _peak(device)
        except torch.OutOfMemoryError:
            yield part, -1
        bench.modules.clear()
        _empty(device)


def _steps(run: Bench, rounds: int) -> dict[str, Any]:
    """Seconds per step of the bare transformer and of the attached one, in turns; or why it could not be attached."""
    seconds: dict[str, list[float]] = {"bare": [], "attached": []}
    pipe, found = _Loop(run), dict[str, Any]()
    for number in range(rounds + 1):
        for kind in seconds:
            try:
                with attach(pipe) if kind == "attached" else contextlib.nullcontext() as attachment:
                    _wait(run.device)
                    start = time.perf_counter()
                    pipe()
                    _wait(run.device)
                    taken = time.perf_counter() - start
                    if attachment:
                        found["backends"] = {role: one.backend for role, one in attachment.receipt.attention.items()}
            except FastVideoError as error:
                found["error"] = str(error)
                continue
            if number:  # the first round warms up
                seconds[kind].append(taken)
    return {**{kind: statistics.median(values) for kind, values in seconds.items() if values}, **found}


class _Loop:
    """A pipeline of one step, with what `attach` looks at."""

    def __init__(self, run: Bench) -> None:
        self.run = run
        self.components = {name: one for name, one in run.modules.items() if name.startswith("transformer")}
        self.config: dict[str, Any] = {}
        self._execution_device, self.name_or_path = run.device, run.name
        for name, one in self.components.items():
            setattr(self, name, one)

    def check_inputs(self) -> None:
        """Nothing: here a run begins."""

    def progress_bar(self, iterable: Any = None, total: int | None = None) -> Any:
        from diffusers.utils.logging import tqdm

        return tqdm(iterable, disable=True) if iterable is not None else tqdm(total=total, disable=True)

    def __call__(self) -> None:
        self.check_inputs()
        with self.progress_bar(total=1) as bar:
            transformer, arguments = self.components["transformer"], self.run.arguments()
            for branch in ("cond", "uncond") if self.run.name != "HunyuanVideo" else ("cond",):
                with transformer.cache_context(branch):
                    transformer(**arguments, return_dict=False)
            bar.update()


def _reset(device: torch.device) -> None:
    _empty(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _empty(device: torch.device) -> None:
    import gc

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def _now(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _in_process(queue: Any, measure: Callable[..., dict[str, Any]], *arguments: Any) -> None:
    name, way, tiny, *more = arguments
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        queue.put(measure(name, way, tiny, device, *more))
    except torch.OutOfMemoryError:
        queue.put({OUT_OF_MEMORY: True})
    except Exception as error:
        traceback.print_exc()
        queue.put({"error": f"{type(error).__name__}: {error}"[:500]})


def _apart(measure: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What a process of its own measures."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    start = time.perf_counter()
    process = context.Process(target=_in_process, args=(queue, measure, *arguments))
    process.start()
    while process.is_alive() and queue.empty():
        time.sleep(0.1)
    found: dict[str, Any] = queue.get() if not queue.empty() else {"error": "the process ended without a result"}
    process.join()
    print(f"{', '.join(arguments[:2])}: {time.perf_counter() - start:.0f} s, {_short(found)}", flush=True)
    return found


@click.command()
@click.option("--only", multiple=True, type=click.Choice([*SHOWN]), help="Models; all by default.")
@click.option("--way", "ways", multiple=True, type=click.Choice(WAYS), help="Ways to keep weights; all by default.")
@click.option(
    "--jobs", default=3, type=click.IntRange(1), show_default=True, help="Processes that measure memory at a time."
)
@click.option(
    "--rounds", default=3, show_default=True, help="Of steps, bare and attached in turns; 0 for memory alone."
)
@click.option("--memory/--no-memory", default=True, help="Measure memory; --no-memory for seconds alone.")
@click.option("--tiny", is_flag=True, help="Small models, on any machine: tries the script.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("models.json"), show_default=True)
def main(
    only: tuple[str, ...], ways: tuple[str, ...], jobs: int, rounds: int, memory: bool, tiny: bool, output: Path
) -> None:
    if not tiny and not torch.cuda.is_available():
        raise click.ClickException("no GPU here; --tiny tries the script")
    results = earlier(output)
    results["machine"] = {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "memory": torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0,
        "torch": torch.__version__,
    }

    def note(name: str, way: str, found: dict[str, Any]) -> None:
        results.setdefault(name, {}).setdefault(way, {}).update(found)
        with written_whole(output, overwrite=True) as temporary:
            temporary.write_text(json.dumps(results, indent=1))

    cases = [(name, way) for way in ways or WAYS for name in only or SHOWN]  # neighbours are of different models
    for case in cases:
        if memory and case[1] == "whole":  # a decode without tiles may take all that a GPU has
            note(*case, _apart(peaks, *case, tiny))
    with ThreadPoolExecutor(jobs) as pool:
        tiled = [case for case in cases if memory and case[1] != "whole"]
        running = {pool.submit(_apart, peaks, *case, tiny): case for case in tiled}
        crowded = []
        for future in as_completed(running):
            if OUT_OF_MEMORY in (found := future.result()) and jobs > 1:
                crowded.append(running[future])
            else:
                note(*running[future], found)
    for case in crowded:
        note(*case, _apart(peaks, *case, tiny))
    for name, way in cases:
        if way in STEPPED and rounds:
            note(name, way, _apart(speed, name, way, tiny, rounds))
    written = Results("models", "cuda" if torch.cuda.is_available() else "cpu")
    for made in listings(results, {name: video for name, (_, video) in SHOWN.items()}):
        written.add(made)
    if not tiny:
        written.write()


def earlier(output: Path) -> dict[str, Any]:
    """What the file has of earlier runs, to which this one adds; before hours are spent on what cannot be written.

    Raises:
        click.UsageError: its folder is not there, or it is none of ours.
    """
    if not output.parent.is_dir():
        raise click.UsageError(f"--output {str(output)!r}: there is no folder {str(output.parent)!r}")
    try:
        found = json.loads(output.read_text("utf-8")) if output.exists() else {}
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--output {str(output)!r} cannot be added to: {error}") from error
    if not isinstance(found, dict):
        raise click.UsageError(f"--output {str(output)!r} cannot be added to: it is no object of JSON")
    return found


def _short(found: dict[str, Any]) -> str:
    return "peak " + gib(found["peak"]) if "peak" in found else str(found)


if __name__ == "__main__":
    main()
