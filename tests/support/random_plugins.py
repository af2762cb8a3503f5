"""Plugins with faults in random places, as somebody may have them installed; the same ones for the same seed."""

from __future__ import annotations

import random
from pathlib import Path

_PREAMBLE = """
from fastvideo_core import (
    Action, AttentionBackend, BlockStack, CachePolicy, Capabilities, ModelFamily, ModelPreset, Probe, Role, hookimpl
)
import click

class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")
    __repr__ = __str__

class Outcome(BaseException):
    pass

class Hostile:
    def __getattribute__(self, name):
        raise Unprintable

class NoList(list):
    def __iter__(self):
        raise SystemExit(5)

def deep():
    return deep()
"""

_STATEMENTS = (
    "raise RuntimeError('no luck')",
    "raise RuntimeError('\\x1b[31mred\\x1b]0;title\\x07 \\x9b2J \\u202e')",
    "raise RuntimeError('half a letter \\udcff, and\\nlines\\n')",
    "raise SystemExit(3)",
    "raise KeyboardInterrupt",
    "raise GeneratorExit",
    "raise Outcome('skipped')",
    "raise Unprintable",
    "raise MemoryError",
    "raise SystemExit(Unprintable())",
    "deep()",
    "import no_such_module",
    "1 / 0",
    "print('hello \\x1b[31m')",
    "import warnings; warnings.simplefilter('ignore'); warnings.warn('be warned')",
    "return 5",
    "def broken(:",
    "pass",
)
_VALUES = (
    "None",
    "5",
    "'text'",
    "'\\x1b[31mRED'",
    "'\\udcff'",
    "''",
    "[None]",
    "[[]]",
    "object()",
    "Hostile()",
    "[Hostile()]",
    "NoList()",
    "float('nan')",
    "Unprintable()",
    "property(lambda self: 1 / 0)",
    "lambda *arguments: deep()",
    "AttentionBackend",
    "'x' * 100_000",
)
_PLACES = (
    "import",
    "api_version",
    "backend_name",
    "backend_value",
    "backend_class",
    "backends",
    "backends_result",
    "policy_name",
    "policies",
    "policies_result",
    "family_name",
    "family_transformer",
    "family_part",
    "families",
    "families_result",
    "preset_name",
    "preset_location",
    "preset_sampling",
    "presets_result",
    "commands",
    "command",
    "step",
)

_MODULE = """{import}
api_version = {api_version}

class Backend(AttentionBackend):
    name = {backend_name}
    capabilities = {backend_value}
    {backend_class}
    def probe(self):
        return Probe(True)
    def load(self):
        return None

@hookimpl
def fastvideo_attention_backends():
    {backends}
    return {backends_result}

class Policy(CachePolicy):
    name = {policy_name}
    def decide(self, step, state):
        return Action.COMPUTE

@hookimpl
def fastvideo_cache_policies():
    {policies}
    return {policies_result}

@hookimpl
def fastvideo_model_families():
    {families}
    return {families_result}

@hookimpl
def fastvideo_model_presets():
    return {presets_result}

@hookimpl
def fastvideo_register_commands(cli):
    {commands}
    cli.add_command({command})

@hookimpl
def fastvideo_step_done(generation):
    {step}
"""

_DAMAGE = ("none",) * 16 + ("no metadata", "empty metadata", "binary metadata", "no equals sign", "binary", "no module")


def write_random_plugins(folder: Path, count: int, seed: int) -> list[str]:
    """Write distributions acme-0, acme-1, …, as an installer would leave them; their names."""
    names = [f"acme-{number}" for number in range(count)]
    for number, name in enumerate(names):
        _write(folder, name, number, random.Random(f"{seed} {number}"))
    return names


def _write(folder: Path, name: str, number: int, chance: random.Random) -> None:
    damage, module = chance.choice(_DAMAGE), f"acme_random_{number}"
    if damage != "no module":
        (folder / f"{module}.py").write_text(_PREAMBLE + _source(number, chance), "utf-8")
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    metadata = {
        "empty metadata": b"",
        "binary metadata": b"\xff\xfe\x00Name\x80",
    }.get(damage, f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode())
    if damage != "no metadata":
        (info / "METADATA").write_bytes(metadata)
    points = {
        "no equals sign": f"[fastvideo]\n{module}\n".encode(),
        "binary": b"[fastvideo]\n\xff\xfe = \x80\n",
    }.get(damage, f"[fastvideo]\nplugin = {module}\n".encode())
    (info / "entry_points.txt").write_bytes(points)


def _source(number: int, chance: random.Random) -> str:
    """A whole plugin with up to three faults."""
    parts = {
        "import": "pass",
        "api_version": "{version}",
        "backend_name": f"'B{number}'",
        "backend_value": "Capabilities(roles=frozenset({Role.SELF}), lossless=True)",
        "backend_class": "pass",
        "backends": "pass",
        "backends_result": "[Backend()]",
        "policy_name": f"'P{number}'",
        "policies": "pass",
        "policies_result": "[Policy]",
        "family_name": f"'F{number}'",
        "family_transformer": f"'T{number}'",
        "family_part": "BlockStack(('blocks',), 2, 3, 1)",
        "families": "pass",
        "families_result": "",
        "preset_name": f"'m{number}'",
        "preset_location": "'org/model'",
        "preset_sampling": "{}",
        "presets_result": "",
        "commands": "pass",
        "command": f"click.Command('c{number}')",
        "step": "pass",
    }
    statements = {"import", "backend_class", "backends", "policies", "families", "commands", "step"}
    for place in chance.sample(_PLACES, chance.choice((0, 1, 1, 1, 2, 3))):
        parts[place] = chance.choice(_STATEMENTS if place in statements else _VALUES)
    family = f"[ModelFamily({parts['family_name']}, {parts['family_transformer']}, *[{parts['family_part']}] * 5)]"
    parts["families_result"] = parts["families_result"] or family
    preset = f"[ModelPreset({parts['preset_name']}, {parts['preset_location']}, {parts['preset_sampling']})]"
    parts["presets_result"] = parts["presets_result"] or preset
    parts["api_version"] = parts["api_version"].replace("{version}", "__import__('fastvideo_core').API_VERSION")
    return _MODULE.format(**parts)
