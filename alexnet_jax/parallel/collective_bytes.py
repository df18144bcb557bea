"""What devices send each other in a step: counted in a compiled program."""

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Iterator

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}

# Bytes sent by each of n devices for a byte of the result.
_SENT: dict[str, Callable[[int], float]] = {
    "all-gather": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
    "reduce-scatter": lambda n: n - 1,
}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_COLLECTIVE = re.compile(rf"= (.+?) ({'|'.join(_SENT)})(?:-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:body|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
# {{0,1},{2,3}} lists the groups; [2,4]<=[8] says: two groups of four
_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]+)\}|\[\d+,(\d+)\])")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of collective in a program.

    Attributes:
      count: how often it runs.
      bytes: size of its results on each device, in all.
      sent: bytes that each device sends, if results are passed round a ring.
    """

    count: int = 0
    bytes: int = 0
    sent: float = 0.0

    def __add__(self, other: "Collective") -> "Collective":
        return Collective(
            self.count + other.count, self.bytes + other.bytes, self.sent + other.sent
        )

    def __mul__(self, times: int) -> "Collective":
        return Collective(times * self.count, times * self.bytes, times * self.sent)


def collectives(program: str) -> dict[str, Collective]:
    """Returns the collectives by kind of an optimized HLO program, as `compiled.as_text()` has it.

    What a loop's body holds counts as often as the loop runs; what a device does with itself alone
    counts nothing. Sizes are those of the results: of an all-gather that is the joined array, of a
    reduce-scatter the part.
    """
    bodies = _computations(program)
    entry = next(line for line in program.splitlines() if line.startswith("ENTRY"))
    name = _COMPUTATION.match(entry)
    if name is None:
        raise ValueError("The program has no entry that is understood.")
    return _count(name[1], bodies)


def _computations(program: str) -> dict[str, list[str]]:
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in program.splitlines():
        if match := _COMPUTATION.match(line):
            lines = bodies.setdefault(match[1], [])
        lines.append(line)
    return bodies


def _count(name: str, bodies: dict[str, list[str]]) -> dict[str, Collective]:
    found: dict[str, Collective] = collections.defaultdict(Collective)
    for line in bodies.get(name, [])[1:]:
        match = _COLLECTIVE.search(line)
        if match and (group := _group(line)) > 1:
            size = _size(match[1])
            found[match[2]] += Collective(1, size, size * _SENT[match[2]](group))
        trips = _TRIPS.search(line)
        for called in _called(line):
            for kind, inside in _count(called, bodies).items():
                found[kind] += inside * (int(trips[1]) if trips else 1)
    return found


def _called(line: str) -> Iterator[str]:
    if not _COLLECTIVE.search(line):  # its to_apply is the sum
        yield from _CALLED.findall(line)
        for branches in _BRANCHES.findall(line):
            yield from (name.strip().lstrip("%") for name in branches.split(","))


def _group(line: str) -> int:
    """Returns how many devices take part together; a permutation has pairs in place of groups."""
    match = _GROUPS.search(line)
    if match is None:
        return 2
    return int(match[2]) if match[2] else len(match[1].split(","))


def _size(shapes: str) -> int:
    return sum(
        BYTES[kind] * math.prod(int(side) for side in sides.split(",") if side)
        for kind, sides in _SHAPE.findall(shapes)
    )
