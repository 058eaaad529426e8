"""glibc's allocator, told to keep large blocks: activations of 1 to 30 MB are otherwise given back and faulted in.

It changes speed only, and only on Linux with glibc. It is a setting of the whole process, so it is made only in the
processes of this program: the command line, the ranks of torchrun and the workers, which claim theirs. In a notebook,
or in another program that imports the package, the allocator stays as it is.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["claim_process", "is_own_process", "keep_large_blocks"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # mallopt's parameter numbers in malloc.h

_own_process = False


def claim_process() -> None:
    """Say that this process is the program's own, so that a runtime may change settings of the whole process."""
    global _own_process
    _own_process = True


def is_own_process() -> bool:
    """Whether the process was claimed."""
    return _own_process


def keep_large_blocks() -> bool:
    """Raise the trim and mmap thresholds to 1 GiB; True where it took effect."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False  # musl and others: nothing to set
    settings = ((_TRIM_THRESHOLD, 1 << 30), (_MMAP_THRESHOLD, 1 << 30), (_TOP_PAD, 64 << 20))
    return all(mallopt(key, value) for key, value in settings)
