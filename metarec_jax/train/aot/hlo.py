"""Analysis of a compiled program: FLOPs, bytes and collectives, with the body of a loop counted in every iteration.

XLA's own totals count a body once, and include bytes that never leave a chip's scratch memory. This module reads the
text of the scheduled program: products by their shapes, bytes by transfers from and to main memory, and cycles where
the TPU compiler wrote its estimate next to a fusion.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Turns = Callable[[str], int | None]
"""Path of a loop ("jit(step)/embed/while") -> its iterations, where they depend on the data; None if unknown."""

_BITS = {
    "pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32, "s64": 64, "u64": 64,
    "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128, "f8e4m3fn": 8, "f8e5m2": 8,
    "f8e4m3b11fnuz": 8,
}  # fmt: skip
_ARRAY = re.compile(rf"\b({'|'.join(_BITS)})\[([0-9,]*)\](\{{[^{{}}]*\}})?")
_ELSEWHERE = re.compile(r"S\([1-9]\d*\)")
"""Layout of an array that is not in main memory, but in the scratch memory of a core or in its flags."""
COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip
_FREE = frozenset(
    (
        "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
        "iota", "opt-barrier", "optimization-barrier", "domain", "add-dependency", "bitcast-convert",
    )
)  # fmt: skip
"""Operations that transfer no bytes."""


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    type: str
    operation: str
    operands: tuple[str, ...]
    attributes: str


_NO_ESTIMATE = 1 << 50
"""Cycles from which on the compiler says that it has no estimate (of large sorts on v6e, say)."""


@dataclasses.dataclass
class Tally:
    """Operations of one run of a program on one device.

    Attributes:
        flops: floating-point operations of matrix products.
        bytes: bytes read from and written to main memory.
        cycles: the compiler's estimate of cycles; 0 without one.
        seconds: the compiler's estimate of seconds; 0 without one.
        sent: bytes that each kind of collective reads from a device.
        calls: number of calls of each kind.
        guessed: number of loops with unknown iterations, whose body is counted once.
    """

    flops: float = 0.0
    bytes: float = 0.0
    cycles: float = 0.0
    seconds: float = 0.0
    sent: dict[str, float] = dataclasses.field(default_factory=dict)
    calls: dict[str, float] = dataclasses.field(default_factory=dict)
    guessed: int = 0

    def add(self, other: Tally, times: float = 1) -> None:
        """Add the operations of another tally.

        Args:
            other: the other tally.
            times: number of times to add it.
        """
        for name in ("flops", "bytes", "cycles", "seconds"):
            setattr(self, name, getattr(self, name) + times * getattr(other, name))
        for kind in other.calls:
            self.send(kind, times * other.sent[kind], times * other.calls[kind])
        self.guessed += other.guessed

    def send(self, kind: str, count: float, calls: float = 1) -> None:
        """Add calls of a collective.

        Args:
            kind: kind of the collective.
            count: bytes that the calls read from a device.
            calls: number of calls.
        """
        self.calls[kind] = self.calls.get(kind, 0) + calls
        self.sent[kind] = self.sent.get(kind, 0) + count


def tally(text: str, turns: Turns = lambda path: None) -> Tally:
    """Count the operations of a program.

    Args:
        text: text of the compiled program (``compiled.as_text()``).
        turns: iterations of loops that depend on data.

    Returns:
        The operations.
    """
    return _Reader(*parse(text), turns).total()


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The computations of a program by name, and the name of its entry."""
    computations: dict[str, list[Instruction]] = {}
    current, entry = None, ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-<>]+) \(.*\{\s*$", line)
        if head:
            current = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (found := _instruction(line)):
            current.append(found)
    return computations, entry


def _instruction(line: str) -> Instruction | None:
    named = re.match(r"\s+(?:ROOT )?%?([\w.\-<>]+) = ", line)
    if not named:
        return None
    rest = line[named.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    type_, rest = rest[:end], rest[end:].strip()
    operation = re.match(r"([\w\-]+)\(", rest)
    if not operation:
        return None
    close = _closing(rest, operation.end() - 1)
    inside = rest[operation.end() : close]
    operands = tuple(re.findall(r"%([\w.\-<>]+)", inside))
    # The parentheses contain the value of a constant, and the number of a parameter.
    attributes = rest[close + 1 :] if operation[1] not in ("constant", "parameter") else inside
    return Instruction(named[1], type_, operation[1], operands, attributes)


def _closing(text: str, start: int) -> int:
    """Position of the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return len(text)


def size(type_: str, *, main_memory: bool = False) -> float:
    """Size of a type.

    Args:
        type_: type as in HLO text; a tuple counts all its arrays.
        main_memory: whether to count only arrays in main memory.

    Returns:
        Bytes.
    """
    total = 0.0
    for element, dims, layout in _ARRAY.findall(type_):
        if not (main_memory and _ELSEWHERE.search(layout)):
            total += math.prod(map(int, filter(None, dims.split(",")))) * _BITS[element] / 8
    return total


def _in_main(type_: str) -> bool:
    """Whether an array of this type lies in main memory."""
    return not _ELSEWHERE.search(type_)


def _shape(type_: str) -> list[int]:
    found = _ARRAY.search(type_)
    return [int(dim) for dim in found[2].split(",") if dim] if found else []


def _parts(type_: str) -> list[str]:
    """The types of a tuple, or the type itself."""
    if not type_.startswith("("):
        return [type_]
    parts, depth, current = [], 0, ""
    for letter in type_[1:-1]:
        depth += (letter in "({[") - (letter in ")}]")
        if letter == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += letter
    return [*parts, current.strip()]


class _Reader:
    def __init__(self, computations: Mapping[str, Sequence[Instruction]], entry: str, turns: Turns):
        self._computations, self._entry, self._turns = computations, entry, turns
        self._known: dict[str, Tally] = {}

    def total(self) -> Tally:
        return self._of(self._entry)

    def _of(self, name: str) -> Tally:
        if name in self._known:
            return self._known[name]
        found = Tally()
        lines = self._computations.get(name, ())
        types = {line.name: line.type for line in lines}
        for line in lines:
            self._count(line, types, found)
        self._known[name] = found
        return found

    def _count(self, line: Instruction, types: Mapping[str, str], into: Tally) -> None:
        operation, attributes = line.operation, line.attributes
        if cycles := re.search(r'"estimated_cycles":"(\d+)"', attributes):
            into.cycles += int(cycles[1]) if int(cycles[1]) < _NO_ESTIMATE else 0
        into.seconds += _reified(attributes)
        if operation == "while":
            turns = self._turns_of(line)
            into.guessed += turns is None
            into.add(self._of(_named(attributes, "body")), 1 if turns is None else turns)
            return
        if operation == "conditional":  # one of its branches runs: count the most expensive
            names = re.findall(r"%([\w.\-<>]+)", attributes.partition("branch_computations={")[2].partition("}")[0])
            names += [n for key in ("true_computation", "false_computation") if (n := _named(attributes, key))]
            into.add(max((self._of(name) for name in names), key=lambda t: (t.cycles, t.bytes), default=Tally()))
            return
        called = _named(attributes, "calls") or _named(attributes, "to_apply")
        if operation in ("call", "async-start", "call-start") and called:
            into.add(self._of(called))
            return
        if operation in _FREE or operation.endswith(("-done", "-update")):
            return
        if operation in ("fusion", "fusion-start") and called:
            inside = self._of(called)  # products, and collectives that were fused into a kernel
            into.flops += inside.flops
            for fused in inside.calls:
                into.send(fused, inside.sent[fused], inside.calls[fused])
        into.flops += _products(line, types)
        kind = operation.removesuffix("-start")
        if kind in COLLECTIVES:
            # Bytes that a device sends; for a gather those that it receives, which it forwards on a ring.
            given = sum(size(types.get(operand, "")) for operand in line.operands)
            got = size(_parts(line.type)[-1]) if operation.endswith("-start") else size(line.type)
            into.send(kind, max(given, got) if kind == "all-gather" else given)
        into.bytes += self._moved(line, types)

    def _turns_of(self, line: Instruction) -> int | None:
        known = re.search(r'known_trip_count":\{"n":"(\d+)"', line.attributes)
        if known:
            return int(known[1])
        condition = self._computations.get(_named(line.attributes, "condition"), ())
        constants = {
            step.name: int(step.attributes)
            for step in condition
            if step.operation == "constant" and re.fullmatch(r"-?\d+", step.attributes)
        }
        for step in condition:
            if step.operation in ("compare", "fusion"):
                bound = [constants[operand] for operand in step.operands if operand in constants]
                if bound:
                    return max(bound[0], 0)
        path = re.search(r'op_name="([^"]*)"', line.attributes)
        return self._turns(path[1] if path else "")

    def _moved(self, line: Instruction, types: Mapping[str, str]) -> float:
        """Bytes to and from main memory; for slices and updates in place, only those of the slice."""
        operand_types = [types.get(operand, "") for operand in line.operands]
        if line.operation in ("slice", "dynamic-slice", "gather"):
            return size(line.type) * (_in_main(operand_types[0]) + _in_main(line.type))
        if line.operation == "dynamic-update-slice":
            return size(operand_types[1]) * (_in_main(line.type) + _in_main(operand_types[1]))
        if line.operation in ("copy-start", "slice-start"):
            target, source = _parts(line.type)[0], operand_types[0]
            return size(target, main_memory=True) + (size(target) if _in_main(source) else 0.0)
        result = _parts(line.type)[-1] if line.operation == "fusion-start" else line.type
        body = self._computations.get(_named(line.attributes, "calls"), ()) if "fusion" in line.operation else ()
        if not body:
            return size(result, main_memory=True) + sum(size(t, main_memory=True) for t in operand_types)
        return self._moved_by_fusion(body, operand_types, _parts(result))

    def _moved_by_fusion(self, body: Sequence[Instruction], operands: Sequence[str], results: Sequence[str]) -> float:
        inner = {step.name: step for step in body}
        updates = {step.name: step for step in body if step.operation == "dynamic-update-slice"}
        in_place, total = set(), 0.0
        for parameter in (step for step in body if step.operation == "parameter"):
            number = int(parameter.attributes)
            if number >= len(operands) or _ELSEWHERE.search(operands[number]):
                continue
            uses = [step for step in body if parameter.name in step.operands]
            first = all(step.operands[0] == parameter.name for step in uses)
            if uses and first and all(step.operation in ("slice", "dynamic-slice", "gather") for step in uses):
                total += sum(size(step.type) for step in uses)
            elif uses and first and all(step.operation == "dynamic-update-slice" for step in uses):
                in_place.add(parameter.name)
            else:
                total += size(operands[number])
        root = body[-1]
        names = root.operands if root.operation == "tuple" else (root.name,)
        for type_, name in zip(results, names):
            if _ELSEWHERE.search(type_):
                continue
            update = updates.get(name)
            if update is not None and update.operands[0] in in_place:
                type_ = inner[update.operands[1]].type
            total += size(type_)
        return total


def _named(attributes: str, key: str) -> str:
    found = re.search(rf"\b{key}=%?([\w.\-<>]+)", attributes)
    return found[1] if found else ""


def _reified(attributes: str) -> float:
    """Seconds that XLA's GPU cost model wrote next to an operation ("speed of light")."""
    total = 0.0
    for costs in re.findall(r'"reification_cost":(\[[^\]]*\])', attributes):
        total += sum(c["exec_time_us"] for c in json.loads(costs) if c["name"] == "sol") * 1e-6
    return total


def _products(line: Instruction, types: Mapping[str, str]) -> float:
    """FLOPs of a matrix product: two for each pair of multiplied numbers."""
    if line.operation == "dot":
        left = _shape(types.get(line.operands[0], ""))
        return 2.0 * math.prod(_shape(line.type)) * math.prod(left[i] for i in _dims(line, "lhs_contracting_dims"))
    if line.operation == "custom-call" and "cublas" in line.attributes:
        found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', line.attributes)
        left = _shape(types.get(line.operands[0], ""))
        contracted = [int(dim) for dim in re.findall(r"\d+", found[1])] if found else []
        return 2.0 * math.prod(_shape(_parts(line.type)[0])) * math.prod(left[i] for i in contracted)
    if line.operation == "convolution":
        return _convolution(line, types)
    return 0.0


def _dims(line: Instruction, key: str) -> list[int]:
    found = re.search(rf"{key}=\{{([0-9,]*)\}}", line.attributes)
    return [int(dim) for dim in found[1].split(",") if dim] if found else []


def _convolution(line: Instruction, types: Mapping[str, str]) -> float:
    """FLOPs of a product in the TPU compiler's form, a convolution with batch axes as spatial axes.

    Only positions inside the input count.
    """
    labels = re.search(r"dim_labels=([\w?]+)_([\w?]+)->([\w?]+)", line.attributes)
    if not labels:
        return 0.0
    left, right = (_shape(types.get(operand, "")) for operand in line.operands[:2])
    out = _shape(line.type)
    window = re.search(r"window=\{([^}]*)\}", line.attributes)
    options = dict(part.split("=") for part in window[1].split()) if window else {}

    def option(name: str, axis: int, default: str) -> str:
        return options[name].split("x")[axis] if name in options else default

    total = 2.0 * out[labels[3].index("b")] * out[labels[3].index("f")] * right[labels[2].index("i")]
    for axis in range(len(labels[3]) - 2):
        name = str(axis)
        inputs, taps = left[labels[1].index(name)], right[labels[2].index(name)]
        low = int(option("pad", axis, "0_0").split("_")[0])
        stride, dilate = int(option("stride", axis, "1")), int(option("lhs_dilate", axis, "1"))
        spread = int(option("rhs_dilate", axis, "1"))
        places = out[labels[3].index(name)]
        total *= _meetings(places, taps, inputs, low, stride, dilate, spread)
    return total


def _meetings(places: int, taps: int, inputs: int, low: int, stride: int, dilate: int, spread: int) -> int:
    """Number of pairs of an output position and a tap that fall on a position of the input."""
    last = (inputs - 1) * dilate
    offsets = np.arange(places) * stride - low
    if spread == 1:  # from each offset, taps on the input are `dilate` apart, starting at the first one on it
        first = np.maximum(-offsets, 0)
        first += -(offsets + first) % dilate
        end = np.minimum(taps - 1, last - offsets)
        return int(np.maximum((end - first) // dilate + 1, 0).sum())
    at = offsets[:, None] + np.arange(taps) * spread
    return int(((at >= 0) & (at <= last) & (at % dilate == 0)).sum())
