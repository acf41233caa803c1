"""What of a machine decides the last digits of a sum."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["machine"]


def machine(n_processes: int) -> dict[str, Any]:
    """This machine, as a run of so many processes meets it: versions, processor, threads."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "n_threads": torch.get_num_threads(),
        "n_processes": n_processes,
    }


def _processor() -> str:
    """Its name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
