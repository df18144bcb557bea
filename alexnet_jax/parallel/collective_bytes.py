"""The bytes that devices send each other in a step, counted in the compiled program."""

import collections
import math
import operator
import re
from collections.abc import Callable, Iterator

import flax.struct
import jax

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}

# Bytes sent by each of n devices for a byte of the result.
_SENT: dict[str, Callable[[int], float]] = {
    "all-gather": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
    "reduce-scatter": lambda n: n - 1,
}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_COLLECTIVE = re.compile(rf"= (.+?) ({'|'.join(_SENT)})(?:-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:body|to_apply|calls|\w+_computations?)=\{?((?:%[\w.\-]+(?:, )?)+)")
# {{0,1},{2,3}} lists the groups; [2,4]<=[8] means two groups of four
_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]+)\}|\[\d+,(\d+)\])")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@flax.struct.dataclass
class Collective:
    """One kind of collective in a program.

    Attributes:
      count: how often it runs.
      bytes: total size of its results on each device.
      sent: bytes that each device sends if results are passed around a ring.
    """

    count: int = 0
    bytes: int = 0
    sent: float = 0.0


def collectives(program: str) -> dict[str, Collective]:
    """Returns the collectives by kind of an optimized HLO program, from `compiled.as_text()`.

    Those in the body of a loop count as often as the loop runs; those of a group of one device are
    left out. Sizes are those of the results: of an all-gather the gathered array, of a
    reduce-scatter the part.
    """
    bodies: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in program.splitlines():
        if match := _COMPUTATION.match(line):
            lines = bodies.setdefault(match[2], [])
            entry = match[2] if match[1] else entry
        else:
            lines.append(line)
    found: dict[str, Collective] = collections.defaultdict(Collective)
    for kind, collective in _find(entry, bodies, 1):
        found[kind] = jax.tree.map(operator.add, found[kind], collective)
    return found


def _find(name: str, bodies: dict[str, list[str]], times: int) -> Iterator[tuple[str, Collective]]:
    """Yields the kind and the sizes of each collective in a computation that runs `times` times."""
    for line in bodies.get(name, []):
        match, trips = _COLLECTIVE.search(line), _TRIPS.search(line)
        if match and (group := _group_size(line)) > 1:
            size = times * _size(match[1])
            yield match[2], Collective(times, size, size * _SENT[match[2]](group))
        for called in () if match else _CALLED.findall(line):  # a collective calls its sum
            for computation in called.replace("%", "").split(", "):
                yield from _find(computation, bodies, times * (int(trips[1]) if trips else 1))


def _group_size(line: str) -> int:
    """Returns how many devices take part together; a permutation has pairs instead of groups."""
    if match := _GROUPS.search(line):
        return int(match[2]) if match[2] else len(match[1].split(","))
    return 2


def _size(shapes: str) -> int:
    return sum(
        BYTES[dtype] * math.prod(int(side) for side in sides.split(",") if side)
        for dtype, sides in _SHAPE.findall(shapes)
    )
