"""What a model is made with, besides data: the machine, its libraries, every installed package."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

__all__ = ["installed_packages", "surroundings"]


@cache
def installed_packages() -> dict[str, str]:
    """Every installed distribution and its version, by normalised name."""
    found: dict[str, str] = {}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return dict(sorted(found.items()))


def surroundings() -> dict[str, Any]:
    """The interpreter, the libraries that compute, the processor, threads, and what is set about determinism."""
    import numpy as np
    import torch

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    built = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    cuda = torch.cuda.is_available()
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "processor": _processor(),
        "n_processors": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "torch": torch.__version__,
        "torch_blas": built[1] if built else None,
        "torch_threads": torch.get_num_threads(),
        "numpy": np.__version__,
        "numpy_blas": f"{blas.get('name')} {blas.get('version')}",
        "cuda": torch.version.cuda if cuda else None,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic if cuda else None,
    }


def _processor() -> str:
    """What the processor calls itself."""
    about = Path("/proc/cpuinfo")
    if about.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", about.read_text(errors="replace"), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()
