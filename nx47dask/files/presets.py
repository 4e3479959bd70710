"""Presets: the workflows that come with the package. A YAML file in their folder is a preset with the file's name."""

from __future__ import annotations

from pathlib import Path

__all__ = ["preset_names", "preset_path"]


def preset_names() -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def preset_path(name: str) -> Path:
    """Return the path of the file of a preset."""
    return _folder() / f"{name}.yaml"


def _folder() -> Path:
    """Return the folder of the presets: ``presets/`` in an installed package, ``workflows/`` in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "presets"
    return packaged if packaged.is_dir() else package.parent / "workflows"
