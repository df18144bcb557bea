"""Typed config keys: how a tree of them is checked, parsed and merged with what a user wrote.

Nothing here knows a key of this project; `config/defaults.py` holds those. Errors are returned as
sentences, never raised, so that a user sees all of them at once.
"""

import ast
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from alexnet_jax.errors import did_you_mean

Tree = dict[str, Any]
MAX_LENGTH = 1000  # of a string or a tuple: checks stay fast for any value


@dataclasses.dataclass(frozen=True)
class Key:
    """One config key; the functions below make them.

    Attributes:
      default: value if the user gives none. If it is None, None is a valid value.
      kind: type of the value; for a tuple, `element` describes its elements.
      doc: meaning and unit, one sentence.
      choices: the valid values, if they can be listed.
      low, high: inclusive bounds of a number.
      element: what each element of a tuple must be.
      check: returns a sentence on what else is wrong with a value of the right type, or "".
    """

    default: Any
    kind: type
    doc: str
    choices: tuple[Any, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    element: "Key | None" = None
    check: Callable[[Any], str] = lambda value: ""


def integer(default: int | None, doc: str, low: int, high: int) -> Key:
    """Returns a key for a whole number."""
    return Key(default, int, doc, low=low, high=high)


def number(default: float | None, doc: str, low: float, high: float) -> Key:
    """Returns a key for a real number."""
    return Key(default, float, doc, low=low, high=high)


def text(default: str | None, doc: str, check: Callable[[str], str] = lambda value: "") -> Key:
    """Returns a key for a string, which `check` may reject."""
    return Key(default, str, doc, check=check)


def choice(default: str | None, doc: str, choices: Sequence[str] | Mapping[str, Any]) -> Key:
    """Returns a key for one of several names, such as those of a registry."""
    return Key(default, str, doc, choices=tuple(choices))


def flag(default: bool | None, doc: str) -> Key:
    """Returns a key that is True or False."""
    return Key(default, bool, doc)


def many(element: Key, doc: str, default: tuple[Any, ...] = ()) -> Key:
    """Returns a key for a tuple of any length."""
    return Key(default, tuple, doc, element=element)


@dataclasses.dataclass(frozen=True)
class Table:
    """A part of the tree whose rows the user names; every row has the same keys.

    Attributes:
      row: the keys of a row.
      rows: the rows that always exist, with the values that differ from the defaults of `row`.
        Rows that a user adds come before them.
    """

    row: Mapping[str, Key]
    rows: Mapping[str, Mapping[str, Any]]


Schema = Mapping[str, Any]  # of Key, Table or Schema


def defaults(schema: Schema | Table) -> Tree:
    """Returns the tree of default values."""
    if isinstance(schema, Table):
        return {name: {**defaults(schema.row), **row} for name, row in schema.rows.items()}
    return {
        name: node.default if isinstance(node, Key) else defaults(node)
        for name, node in schema.items()
    }


def keys(schema: Schema, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Yields every (dotted path, key); the row of a table is named `<row>`."""
    for name, node in schema.items():
        if isinstance(node, Key):
            yield f"{prefix}{name}", node
        else:
            below = {"<row>": node.row} if isinstance(node, Table) else node
            yield from keys(below, f"{prefix}{name}.")


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
            node = node.row if part else None
        else:
            node = node.get(part) if isinstance(node, Mapping) else None
    return node if isinstance(node, Key) else None


def merge(schema: Schema, given: Mapping[str, Any]) -> tuple[Tree, list[str]]:
    """Merges given values into the defaults.

    Args:
      schema: the tree of keys.
      given: {dotted path: value}.

    Returns:
      The full tree, and a sentence for each unknown path or invalid value.
    """
    tree, errors = defaults(schema), []
    known = [path for path, _ in keys(schema)]
    for path, value in given.items():
        key = find(schema, path)
        value, error = check(key, value) if key else (None, _unknown(path, known))
        if error:
            errors.append(f"{path}: {error}")
        else:
            _set(schema, tree, path, value)
    return tree, errors


def _unknown(path: str, known: Sequence[str]) -> str:
    """Returns the error for a path that is not a key."""
    near = [_with_row_of(path, candidate) for candidate in known]
    below = [candidate for candidate in near if candidate.startswith(f"{path}.")]
    if below:
        return f"is a group of keys; set one of them, such as {below[0]!r}."
    return f"there is no such key.{did_you_mean(path, near)}"


def _with_row_of(path: str, known: str) -> str:
    """Returns a known path with its `<row>` named as in `path`, if both start with one section."""
    given, parts = path.split("."), known.split(".")
    if given[0] != parts[0]:
        return known
    given += parts[len(given) :]
    pairs = zip(parts, given, strict=False)
    return ".".join(row if name == "<row>" else name for name, row in pairs)


def _set(schema: Schema, tree: Tree, path: str, value: Any) -> None:
    """Writes one value into the tree; a new row of a table starts from the defaults of its keys."""
    node: Any = schema
    *parents, name = path.split(".")
    for part in parents:
        if isinstance(node, Table):
            if part not in tree:
                last = {row: tree.pop(row) for row in node.rows}
                tree |= {part: defaults(node.row), **last}
            node = node.row
        else:
            node = node[part]
        tree = tree[part]
    tree[name] = value


def check(key: Key, value: Any) -> tuple[Any, str]:
    """Returns the value as the type of the key, and a sentence on what is wrong with it, or ''."""
    if value is None and key.default is None:
        return None, ""
    converted = _convert(key.kind, value)
    if converted is None:
        return None, f"{value!r} is not {_expected(key)}."
    if isinstance(converted, (str, tuple)) and len(converted) > MAX_LENGTH:
        return None, f"{len(converted)} characters or elements are more than {MAX_LENGTH}."
    if key.element is None:
        return converted, _not_allowed(key, converted) or key.check(converted)
    checked = [check(key.element, element) for element in converted]
    if any(element is None for element, _ in checked):
        return None, f"{value!r} is not {_expected(key)}."
    errors = [error for _, error in checked if error]
    return tuple(element for element, _ in checked), errors[0] if errors else ""


def _convert(kind: type, value: Any) -> Any:
    """Returns value as `kind` if that loses nothing, otherwise None."""
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if isinstance(value, bool) and kind is not bool:
        return None
    if kind is float and isinstance(value, int):
        return float(value) if abs(value) < 2**1023 else None
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, kind) else None


def _not_allowed(key: Key, value: Any) -> str:
    if key.choices and value not in key.choices:
        hint = did_you_mean(str(value), [str(choice) for choice in key.choices])
        return f"{value!r} is not one of {', '.join(map(repr, key.choices))}.{hint}"
    if key.kind not in (int, float) or key.low <= value <= key.high:
        return ""
    bound = f"below the minimum, {key.low}" if value < key.low else f"above the maximum, {key.high}"
    return f"{value!r} is {bound}."


def _expected(key: Key) -> str:
    name = _TUPLES[key.element.kind] if key.element else _NAMES[key.kind]
    return f"{name} or None" if key.default is None else name


_NAMES = {int: "an integer", float: "a number", str: "a string", bool: "True or False"}
_TUPLES = {
    int: "a tuple of integers, such as (1, 2) or (1,)",
    float: "a tuple of numbers, such as (0.1, 0.2) or (0.1,)",
    str: "a tuple of strings, such as ('a', 'b') or ('a',)",
}


def parse(key: Key, text: str) -> tuple[Any, str]:
    """Reads a value typed on the command line.

    Returns:
      The value, and a sentence on what is wrong with it, or ''.
    """
    if key.default is None and text == "None":
        return None, ""
    if key.kind is str:
        return check(key, text)
    if key.kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true", ""
    if len(text) > MAX_LENGTH:
        return None, f"{text[:20]!r}... has more than {MAX_LENGTH} characters."
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None, f"{text!r} is not {_expected(key)}."
    return check(key, value)
