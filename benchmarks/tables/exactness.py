"""Numbers of benchmarks/quality/exactness.py: its last line."""

from __future__ import annotations

from pathlib import Path

from .lines import Shown, lines


def numbers(results: Path) -> dict[str, str]:
    """Return cases and mutants, how many differ and how many were run; instruction sets."""
    line = lines(results, "exactness")[-1]
    known = {"baseline": "scalar", "avx2": "AVX2", "avx512": "AVX-512", "avx512-vnni": "AVX-512 with VNNI"}
    sets = " and ".join(", ".join(known[isa] for isa in line["isas"]).rsplit(", ", 1))
    return {"isas": sets} | {
        name: f"{line[name]:,}"
        for name in ("networks", "cases", "differing", "sums", "sum_cases", "sum_differing", "mutants", "opened")
    }


SHOWN = Shown({}, numbers)
