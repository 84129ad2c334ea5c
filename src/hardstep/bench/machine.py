"""What a measurement depends on: machine, instruction set, cores, versions."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

from joblib import cpu_count

from hardstep.engine import available_isas
from hardstep.report import versions

__all__ = ["cores", "cpu", "isa", "machine"]


@cache
def cpu(key: str) -> str:
    """Return what Linux says about the first processor, such as its "flags" or its "model name"; else nothing."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def isa() -> str:
    """Return the instruction set that the engine uses here."""
    return (available_isas() or ["numpy"])[-1]


def cores() -> int:
    """Return how many cores this process may use."""
    return int(cpu_count())


def machine() -> dict[str, str | int]:
    """Return versions and machine, as they stand in a line of results."""
    name = cpu("model name") or platform.processor() or "unknown"
    system = f"{platform.machine()}, {platform.system()}"
    return {**versions(), "machine": system, "cpu": name, "isa": isa(), "cores": cores()}
