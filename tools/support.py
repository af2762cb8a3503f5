"""Write docs/support.md anew: python tools/support.py [--only SUITE …] (make support).

Every suite of a model family that the tests hold (tests/test_famil*.py) is a row: a new one appears by itself. Its tiny
pipeline is run with each backend that runs here, each caching policy, offloaded and with rounded weights; what is
refused is noted with the message.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import torch

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "support.md"
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]

from fastvideo_core.contract.attention import Need  # noqa: E402  # the tests lie beside this folder
from fastvideo_core.contract.model import ModelFamily  # noqa: E402
from fastvideo_core.discovery.plugins import load_plugins  # noqa: E402
from fastvideo_core.engine.attachment import Attachment  # noqa: E402
from fastvideo_core.engine.attention.resolve import mismatch  # noqa: E402
from fastvideo_core.engine.caching.choice import choose_policy  # noqa: E402
from fastvideo_core.engine.diffusers_bridge import blocks_can_be_compiled  # noqa: E402
from fastvideo_core.errors import FastVideoError  # noqa: E402
from fastvideo_core.testing import ModelFamilySuite  # noqa: E402
from tests.support import weights  # noqa: E402

GPU_KERNELS = ("FLASH_ATTN", "SAGE_ATTN")
ALIKE = "DIFFUSERS_"
"""Backends that serve what TORCH_SDPA serves, where they run: they get no columns."""
"""Held against the families by what they declare, at the head size of the real models: they do not run here."""
SETTINGS: dict[str, dict[str, Any]] = {
    "SLIDING_TILE_ATTN": {"tile": (1, 8, 16), "window": (1, 1, 1), "dense": 0},
    "DBCACHE": {"last_blocks": 0},
    "TEACACHE": {"threshold": 0.1, "coefficients": (1.0, 0.0)},
    "MAGCACHE": {"ratios": (1.0,) * 12},
}
"""What fits pipelines as small as these, and what policies need that have it for some checkpoints only."""
WAYS: dict[str, Callable[[Any, Path], None]] = {
    "offload": weights.offload_groups("leaf_level"),
    "FP8": weights.cast_layers,
    "torchao int8": weights.quantize_torchao,
}
YES = "yes"


@dataclass
class Row:
    """A suite: which pipeline it runs, and what each column comes to."""

    suite: str
    family: str
    transformer: str
    pipeline: str
    cells: dict[str, str] = field(default_factory=dict)


def suites() -> Iterator[tuple[str, Any]]:
    """Every suite of the tests, by the name of its class; one for each pipeline and configuration."""
    for file in sorted((ROOT / "tests").glob("test_famil*.py")):
        module = import_module(f"tests.{file.stem}")
        for name, value in vars(module).items():
            if name.startswith("Test") and isinstance(value, type) and issubclass(value, ModelFamilySuite):
                yield name, value


def columns() -> list[str]:
    """What is held against each pipeline: whatever is installed."""
    plugins = load_plugins()
    backends = [name for name in plugins.backend_names() if name != "TORCH_SDPA" and not name.startswith(ALIKE)]
    return ["TORCH_SDPA", *backends, *plugins.policy_names(), "compile", *WAYS]


def row_of(name: str, kind: Any) -> Row:
    """Try everything on one suite's pipeline."""
    suite = kind()
    pipe = suite._pipeline()
    row = Row(name, kind.family.name, kind.family.transformer, type(pipe).__name__)
    bare = suite.generate(pipe)
    for column in columns():
        row.cells[column] = _cell(suite, pipe, bare, column)
    return row


def _cell(suite: Any, pipe: Any, bare: torch.Tensor, column: str) -> str:
    plugins, family = load_plugins(), suite.family
    try:
        if column == "compile":
            return YES if blocks_can_be_compiled(family.transformer) else "diffusers does not say which blocks repeat"
        if column in GPU_KERNELS:
            backend = plugins.backend(column)[0]
            problems = [problem for one in _real_needs(family) if (problem := mismatch(backend, one))]
            return "; ".join(problems) or YES
        if column in WAYS:
            return _changed(suite, column)
        if column in plugins.policy_names():
            return _cached(suite, pipe, bare, column)
        with Attachment(pipe, column, SETTINGS.get(column), None, None, plugins):
            found = suite.generate(pipe)
    except FastVideoError as error:
        return _plain(str(error))
    if column != "TORCH_SDPA":
        return YES
    if torch.equal(found, bare):
        return "equal"
    return f"differs by {float((found - bare).abs().max()):.0e}"


def _real_needs(family: ModelFamily) -> list[Need]:
    """What a real model asks of a backend: the defaults of diffusers' class are the configuration of one."""
    parameters = inspect.signature(getattr(diffusers, family.transformer)).parameters
    config = {name: one.default for name, one in parameters.items()}
    return family.needs(config, torch.bfloat16, torch.device("cuda"))


def _cached(suite: Any, pipe: Any, bare: torch.Tensor, name: str) -> str:
    plugins = load_plugins()
    chosen = choose_policy(plugins, name, SETTINGS.get(name))
    assert chosen is not None
    with Attachment(pipe, "TORCH_SDPA", None, chosen.policy, None, plugins):
        suite.generate(pipe)
    return YES


def _changed(suite: Any, column: str) -> str:
    """With its weights offloaded or rounded, on a pipeline of its own: this cannot be undone."""
    pipe = suite._pipeline()
    with tempfile.TemporaryDirectory() as folder:
        for name, component in pipe.components.items():
            if name.startswith("transformer") and component is not None:
                WAYS[column](component, Path(folder))
        alone = suite.generate(pipe)
        with Attachment(pipe, "TORCH_SDPA", None, None, None, load_plugins()):
            found = suite.generate(pipe)
    if torch.allclose(found, alone, rtol=1e-4, atol=1e-4):
        return YES
    return f"differs by {float((found - alone).abs().max()):.0e} from the bare pipeline"


def _plain(message: str) -> str:
    """A message without what changes from run to run."""
    return re.sub(r"\s+", " ", re.sub(r"/tmp/\S+|0x[0-9a-f]+", "…", message)).strip()


def page(rows: list[Row], left_out: dict[str, str]) -> str:
    """The document."""
    names, notes = columns(), dict[str, int]()

    def shown(cell: str) -> str:
        if cell in (YES, "equal") or cell.startswith("differs by"):
            return cell
        return f"refused [{notes.setdefault(cell, len(notes) + 1)}]"

    lines = [f"| {' | '.join(('pipeline', 'family', *names))} |", "|" + "---|" * (len(names) + 2)]
    for row in rows:
        what = f"`{row.pipeline}`, {row.suite.removeprefix('Test')}"
        lines.append(f"| {' | '.join((what, row.family, *(shown(row.cells[name]) for name in names)))} |")
    refused = [f"{number}. {message}" for message, number in notes.items()]
    absent = [f"| `{kind}` | {reason} |" for kind, reason in sorted(left_out.items())]
    without = ["", "## Without a family", "", _WITHOUT, "", "| transformer | because |", "|---|---|", *absent]
    return "\n".join([_HEAD, *lines, "", "## Refused", "", *refused, *(without if absent else []), ""])


_HEAD = """# What runs with what

`make support` writes this page from the suites of the model families: each pipeline is built with random weights and
small sizes, on a CPU, and run with everything that is installed. What is refused has its message below the table. A
pipeline that is not listed is served too if its transformer is.

- `TORCH_SDPA` "equal": latents have the same bits as those of the bare diffusers pipeline. Where they differ, the model
  masks padded text, which the core cuts away instead: the same up to rounding.
- `FLASH_ATTN` and `SAGE_ATTN` need a GPU: their columns hold what they declare against what the models ask for.
- Caching policies: whether they run. [Which checkpoints](models.md) have coefficients for TeaCache is another question.
- `compile`: `compile=True`, each kind of block as a whole graph; the suites compare it with the eager run.
- `offload` (leaf by leaf), `FP8` (cast layer by layer) and `torchao int8`: the same as the bare pipeline so changed.
"""
_WITHOUT = "Video transformers of diffusers that no family describes; `attach` says so with an error."


def left_out() -> dict[str, str]:
    """Transformers that the tests say have no family, with the reason."""
    try:
        found: dict[str, str] = import_module("tests.support.left_out").LEFT_OUT
    except ModuleNotFoundError:
        return {}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="suites to try, and print, without writing the page")
    only = parser.parse_args().only
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for name, kind in suites():
        if only and name not in only:
            continue
        print(name, file=sys.stderr, flush=True)
        rows.append(row_of(name, kind))
    text = page(rows, left_out())
    if only:
        print(text)
    else:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
