"""Distributions that appear to be installed in a folder on the path, without building anything."""

from __future__ import annotations

from importlib import invalidate_caches
from pathlib import Path
from shutil import rmtree


def write_distribution(
    folder: Path, name: str, version: str, module: str, source: str, plugin: str | None = None
) -> tuple[Path, Path]:
    """Write a distribution with one module as an installer would leave it, with an entry point if it is a plugin.

    Returns its two folders: the metadata and the package.
    """
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if plugin:
        (metadata / "entry_points.txt").write_text(f"[fastvideo]\n{plugin} = {module}\n")
    package = folder.joinpath(*module.split("."))
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(source)
    invalidate_caches()
    return metadata, package


def remove(*folders: Path) -> None:
    """Remove what was written."""
    for folder in folders:
        rmtree(folder)
