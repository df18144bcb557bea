"""Typed config keys: how a tree of them is checked, parsed and merged with what a user wrote.

Nothing here knows a key of this project; `config/defaults.py` holds those. `merge` returns all
errors at once, a sentence each.
"""

import ast
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flax import traverse_util

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
      check: raises ValueError, with a sentence on what is wrong, for a value of the right type.
    """

    default: Any
    kind: type
    doc: str
    choices: tuple[Any, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    element: "Key | None" = None
    check: Callable[[Any], Any] = lambda value: None


def integer(default: int | None, doc: str, low: int, high: int) -> Key:
    """Returns a key for a whole number."""
    return Key(default, int, doc, low=low, high=high)


def number(default: float | None, doc: str, low: float, high: float) -> Key:
    """Returns a key for a real number."""
    return Key(default, float, doc, low=low, high=high)


def text(default: str | None, doc: str, check: Callable[[str], Any] = lambda value: None) -> Key:
    """Returns a key for a string, which `check` may reject; see `Key`."""
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
    rows: dict[str, dict[str, Any]]


Schema = Mapping[str, Any]  # of Key, Table or Schema


def defaults(schema: Schema | Table, given: Mapping[str, Any] = {}) -> Tree:
    """Returns the tree of default values with the given ones; new rows of a table come first."""
    if isinstance(schema, Table):
        rows: Tree = {name: {} for name in given if name not in schema.rows} | schema.rows
        return {name: defaults(schema.row, row | given.get(name, {})) for name, row in rows.items()}
    return {
        name: given.get(name, node.default)
        if isinstance(node, Key)
        else defaults(node, given.get(name, {}))
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


def flatten(tree: Tree) -> dict[str, Any]:
    """Returns {dotted path: value} of a nested tree."""
    return traverse_util.flatten_dict(tree, sep=".")


def find(schema: Schema, path: str) -> Key | None:
    """Returns the key at a dotted path, or None."""
    return next((key for known, key in keys(schema) if _with_row_of(path, known) == path), None)


def merge(schema: Schema, given: Mapping[str, Any]) -> tuple[Tree, list[str]]:
    """Merges given values into the defaults.

    Args:
      schema: the tree of keys.
      given: {dotted path: value}.

    Returns:
      The full tree, and a sentence for each unknown path or invalid value.
    """
    valid, errors, known = {}, [], dict(keys(schema))
    for path, value in given.items():
        key = known.get(path) or find(schema, path)  # which is slower, but finds rows
        try:
            if key is None:
                raise ValueError(_unknown(schema, path))
            valid[path] = check(key, value)
        except ValueError as error:
            errors.append(f"{path}: {error}")
    return defaults(schema, traverse_util.unflatten_dict(valid, sep=".")), errors


def _unknown(schema: Schema, path: str) -> str:
    """Returns the error for a path that is not a key."""
    near = [_with_row_of(path, known) for known, _ in keys(schema)]
    below = [known for known in near if known.startswith(f"{path}.")]
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
    return ".".join(row if row and name == "<row>" else name for name, row in pairs)


def check(key: Key, value: Any) -> Any:
    """Returns the value as the type of the key.

    Raises:
      ValueError: with a sentence on what is wrong with the value.
    """
    if value is None and key.default is None:
        return None
    converted = _convert(key.kind, value)
    if converted is None:
        raise ValueError(f"{value!r} is not {_expected(key)}.")
    if isinstance(converted, (str, tuple)) and len(converted) > MAX_LENGTH:
        raise ValueError(f"{len(converted)} characters or elements are more than {MAX_LENGTH}.")
    if key.element is not None:
        return tuple(check(key.element, element) for element in converted)
    if key.choices and converted not in key.choices:
        hint = did_you_mean(str(converted), [str(choice) for choice in key.choices])
        raise ValueError(f"{converted!r} is not one of {', '.join(map(repr, key.choices))}.{hint}")
    if key.kind in (int, float) and not key.low <= converted <= key.high:
        raise ValueError(f"{converted!r} is not between {key.low} and {key.high}.")
    key.check(converted)
    return converted


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


_NAMES = {int: "an integer", float: "a number", str: "a string", bool: "True or False"}
_TUPLES = {int: "(1, 2) or (1,)", float: "(0.1, 0.2) or (0.1,)", str: "('a', 'b') or ('a',)"}


def _expected(key: Key) -> str:
    name = f"a tuple such as {_TUPLES[key.element.kind]}" if key.element else _NAMES[key.kind]
    return f"{name} or None" if key.default is None else name


def parse(key: Key, text: str) -> Any:
    """Returns the value of a key as typed on the command line.

    Raises:
      ValueError: with a sentence on what is wrong with it.
    """
    if key.kind is str and (text != "None" or key.default is not None):
        return check(key, text)
    if len(text) > MAX_LENGTH:
        raise ValueError(f"{text[:20]!r}... has more than {MAX_LENGTH} characters.")
    try:
        value = ast.literal_eval(text.capitalize() if key.kind is bool else text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"{text!r} is not {_expected(key)}.") from error
    return check(key, value)
