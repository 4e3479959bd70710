"""YAML files that people write, read with the line of every key for error messages; JSON files of the package."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any

import yaml

from nx47dask.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Document", "Key", "read_document", "read_json", "unknown_key"]

Key = tuple[str | int, ...]


class Document:
    """The data of a YAML file, with the line of each key.

    Parameters
    ----------
    path : Path
    data : Any
        Contents of the file; an empty file is an empty mapping.
    root : yaml.Node or None
    """

    def __init__(self, path: Path, data: Any, root: yaml.Node | None) -> None:
        self.path = path
        self.data = data if data is not None else {}
        self._root = root

    def error(self, where: Key, message: str, *, hint: str = "") -> InputError:
        """Return an error with the line of a key, such as ``("runs", "fast", "set", 0)``."""
        return InputError(f"{self.path}, line {self._line(where)}: {message}", hint=hint)

    def _line(self, where: Key) -> int:
        node, line = self._root, 1
        for name in where:
            if isinstance(node, yaml.MappingNode):
                matches = [(key, value) for key, value in node.value if key.value == str(name)]
                if not matches:
                    break
                line, node = matches[0][0].start_mark.line + 1, matches[0][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(name, int) and name < len(node.value):
                node = node.value[name]
                line = node.start_mark.line + 1
            else:
                break
        return line


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises
    ------
    InputError
        The file is missing or not YAML, or a mapping has a key twice (YAML would silently take the last).
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        document = Document(path, yaml.safe_load(text), root)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a YAML file: {error}") from error
    _refuse_repeated_keys(path, root)
    return document


def read_json(path: Path, hint: str = "") -> dict[str, Any]:
    """Read a JSON object; errors carry the ``hint``.

    Raises
    ------
    InputError
        The file cannot be read or does not hold a JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})", hint=hint) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", hint=hint) from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(data).__name__}", hint=hint)
    return data


def unknown_key(key: object, allowed: Sequence[str]) -> str:
    """Return a message with the allowed keys and the key that was probably meant."""
    near = difflib.get_close_matches(str(key), allowed, n=1)
    guess = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown key {key!r}{guess}; allowed: {', '.join(allowed)}"


def _refuse_repeated_keys(path: Path, node: yaml.Node | None) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise InputError(f"{path}, line {key.start_mark.line + 1}: key {key.value!r} stands here twice")
            seen.add(key.value)
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        for part in child if isinstance(child, tuple) else (child,):
            _refuse_repeated_keys(path, part)
