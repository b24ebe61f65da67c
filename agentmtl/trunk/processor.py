"""What the processor can do: whether it multiplies bfloat16 numbers by instructions of its own."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})  # x86, as Linux names them


@cache
def has_bf16() -> bool:
    """True where Linux lists bf16 instructions; elsewhere, and on Arm, False (fp32 is then used)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return bool(_BF16_FLAGS & set(flags.split()))


def available_cores() -> int:
    """Cores this process may run on (at least 1)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
