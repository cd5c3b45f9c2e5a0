"""Counts matrix products in XLA's optimised program.

A product is a `dot` instruction, wherever the compiler put it (a fusion, a called computation), or
a call into a library of them (cuBLAS, oneDNN). Those in a loop count as often as it runs: XLA
writes down the trip count of every loop that has a known one. The entry computation is walked and
each called computation followed, so what is listed but never called does not count.
"""

import re

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_PRODUCT = re.compile(r"[\])}] dot\(|custom_call_target=\"[^\"]*(?:gemm|matmul)[^\"]*\"")
_CALLED = re.compile(r"(?:calls|to_apply|body)=%?([\w.\-]+)")
_TRIPS = re.compile(r"known_trip_count\":\{\"n\":\"(\d+)\"")


def count_in(text: str) -> int:
    """Matrix products of an optimised HLO module.

    Raises:
      ValueError: a loop with products in it has no known trip count.
    """
    computations, entry = _split(text)

    def count(name: str) -> int:
        total = 0
        for line in computations.get(name, ()):
            inner = sum(map(count, _CALLED.findall(line)))
            total += bool(_PRODUCT.search(line)) + inner * (_trips(line) if inner else 1)
        return total

    return count(entry)


def _split(text: str) -> tuple[dict[str, list[str]], str]:
    """Lines of every computation, and the name of the entry."""
    computations, entry, name = {}, "", ""
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            name = header[2]
            computations[name] = []
            entry = name if header[1] else entry
        elif name:
            computations[name].append(line)
    return computations, entry


def _trips(line: str) -> int:
    """How often a loop runs; 1 for what is no loop."""
    if " while(" not in line:
        return 1
    trips = _TRIPS.search(line)
    if not trips:
        raise ValueError(f"a loop without a known trip count: {line.strip()[:80]}")
    return int(trips[1])
