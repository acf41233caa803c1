"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_NEVER = 2**31 - 1
_LARGE = 2**30


def keep_freed_memory() -> None:
    """Let freed tensors make room for the next ones, in all of this process.

    glibc gives large blocks back to the kernel as soon as they are freed, which must then find, clear and map the pages
    of the next block, again at every step of a training. Other C libraries are left as they are.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)
