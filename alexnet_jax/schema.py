"""Typed config keys: how a tree of them is checked, parsed and merged with what a user wrote.

Nothing here knows a key of this project; `config.py` holds those. Every mistake is returned as a
sentence, never raised, so that a user sees all of them at once.
"""

import ast
import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Key:
    """One config key: its default, its type and what it means.

    Attributes:
      default: value where the user gives none.
      kind: type of the value; for a tuple, the type of its elements stands in `element`.
      doc: meaning and unit, one sentence.
      optional: whether None is a value.
      choices: the allowed values, if only some are.
      low, high: inclusive bounds of a number.
      element: type of a tuple's elements.
      length: length of a tuple, if fixed.
      mutable_on_resume: whether a run that was started with another value may go on with this one.
    """

    default: Any
    kind: type
    doc: str
    optional: bool = False
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    element: type = object
    length: int | None = None
    mutable_on_resume: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A part of the tree whose rows the user names; every row has the same keys."""

    row: Mapping[str, Key]
    rows: Mapping[str, Mapping[str, Any]]
    doc: str


Schema = Mapping[str, Any]  # of Key, Table or Schema


def mutable_keys(keys: Mapping[str, Key]) -> dict[str, Key]:
    """Returns the keys as such that may change within a run."""
    return {name: dataclasses.replace(key, mutable_on_resume=True) for name, key in keys.items()}


def defaults(schema: Schema) -> Tree:
    """Returns the tree of default values."""
    return {name: _default(node) for name, node in schema.items()}


def _default(node: Any) -> Any:
    if isinstance(node, Key):
        return node.default
    if isinstance(node, Table):
        return {name: {**defaults(node.row), **row} for name, row in node.rows.items()}
    return defaults(node)


def keys(schema: Schema, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Yields every (dotted path, key); a table's row is named `<row>`."""
    for name, node in schema.items():
        path = f"{prefix}{name}"
        if isinstance(node, Key):
            yield path, node
        elif isinstance(node, Table):
            yield from keys(node.row, f"{path}.<row>.")
        else:
            yield from keys(node, f"{path}.")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {dotted path: value} of a nested tree."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def find(schema: Schema, path: str) -> Key | None:
    """Returns the key at a dotted path, or None."""
    node: Any = schema
    for part in path.split("."):
        if isinstance(node, Table):
            node = node.row
        elif isinstance(node, Mapping) and part in node:
            node = node[part]
        else:
            return None
    return node if isinstance(node, Key) else None


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Returns ' Did you mean X?' for the closest known word, or ''."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not close:  # a right last name under a wrong parent: model.momentum
        last = word.rsplit(".", 1)[-1]
        close = [path for path in known if path.rsplit(".", 1)[-1] == last][:1]
    return f" Did you mean {close[0]!r}?" if close else ""


def merge(schema: Schema, given: Mapping[str, Any]) -> tuple[Tree, list[str]]:
    """Lays given values over the defaults.

    Args:
      schema: the tree of keys.
      given: {dotted path: value}.

    Returns:
      The full tree, and a sentence for each unknown path or wrong value.
    """
    tree, mistakes = defaults(schema), []
    known = [path for path, _ in keys(schema)]
    for path, value in given.items():
        key = find(schema, path)
        if key is None:
            mistakes.append(_unknown(path, known))
            continue
        value, mistake = check(key, value)
        if mistake:
            mistakes.append(f"{path}: {mistake}")
        else:
            _put(schema, tree, path, value)
    return tree, mistakes


def _unknown(path: str, known: Sequence[str]) -> str:
    """Says what a path that is no key may have been meant for."""
    near = [_with_row_of(path, candidate) for candidate in known]
    below = [candidate for candidate in near if candidate.startswith(f"{path}.")]
    if below:
        return f"{path}: is a group of keys; set one of them, as {below[0]!r}."
    return f"{path}: there is no such key.{did_you_mean(path, near)}"


def _with_row_of(path: str, known: str) -> str:
    """Returns a known path with its `<row>` named as in `path`, where both begin alike."""
    given, parts = path.split("."), known.split(".")
    if given[0] != parts[0]:
        return known
    return ".".join(
        given[place] if name == "<row>" and place < len(given) else name
        for place, name in enumerate(parts)
    )


def _put(schema: Schema, tree: Tree, path: str, value: Any) -> None:
    """Writes one value into the tree; a table's new row starts from its keys' defaults."""
    node: Any = schema
    *parents, name = path.split(".")
    for part in parents:
        if isinstance(node, Table):
            tree.setdefault(part, defaults(node.row))
            node = node.row
        else:
            node = node[part]
        tree = tree[part]
    tree[name] = value


def check(key: Key, value: Any) -> tuple[Any, str]:
    """Returns the value in the key's own type, and a sentence on what is wrong with it, or ''."""
    if value is None:
        return None, "" if key.optional else f"None is not {_article(key)}."
    converted = _convert(key.kind, value)
    if converted is _WRONG:
        return None, f"{value!r} is not {_article(key)}."
    if key.kind is tuple:
        elements = [_convert(key.element, element) for element in converted]
        if any(element is _WRONG for element in elements):
            return None, f"{value!r} is not {_article(key)}."
        if key.length is not None and len(elements) != key.length:
            return None, f"{value!r} has {len(elements)} elements; {key.length} are needed."
        converted = tuple(elements)
    return converted, _out_of_range(key, converted)


_WRONG: Any = object()


def _convert(kind: type, value: Any) -> Any:
    """Returns value as `kind` where nothing is lost by it, otherwise _WRONG."""
    if kind is object:
        return value
    if kind is tuple and isinstance(value, (tuple, list)):
        return tuple(value)
    if isinstance(value, bool) and kind is not bool:
        return _WRONG
    if kind is float and isinstance(value, int):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, float) and not math.isfinite(value):
        return _WRONG
    return value if isinstance(value, kind) else _WRONG


def _out_of_range(key: Key, value: Any) -> str:
    if key.choices and value not in key.choices:
        hint = did_you_mean(str(value), [str(choice) for choice in key.choices])
        return f"{value!r} is not one of {', '.join(map(repr, key.choices))}.{hint}"
    for number in value if key.kind is tuple else (value,):
        if key.low is not None and not number >= key.low:
            return f"{number!r} is below {key.low}, the least allowed."
        if key.high is not None and not number <= key.high:
            return f"{number!r} is above {key.high}, the most allowed."
    return ""


def _article(key: Key) -> str:
    name = _NAMES.get(key.kind) or _TUPLES.get(key.element, "a tuple")
    return f"{name} or None" if key.optional else name


_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
_TUPLES = {
    int: "a tuple of whole numbers, as (1, 2) or (1,)",
    float: "a tuple of numbers, as (0.1, 0.2) or (0.1,)",
    str: "a tuple of texts, as ('a', 'b') or ('a',)",
}


def parse(key: Key, text: str) -> tuple[Any, str]:
    """Reads a value typed on the command line.

    Returns:
      The value, and a sentence on what is wrong with it, or ''.
    """
    if key.optional and text == "None":
        return None, ""
    if key.kind is str:
        return check(key, text)
    if key.kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true", ""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None, f"{text!r} is not {_article(key)}."
    return check(key, value)
