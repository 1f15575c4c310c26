"""The process's memory allocator, tuned by command lines only, never by the library."""

import ctypes
import sys


def keep_freed_memory() -> bool:
    """Let glibc keep the memory that is freed; say whether it could be told so.

    Torch's convolutions allocate and free large blocks. Each would be mapped, zeroed page by page
    and unmapped by the kernel, which halves the throughput of a small network on a CPU, or does
    not, as the heap happens to lie. Elsewhere than on glibc nothing happens.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # M_* of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    settings = ((mmap_threshold, 2**30), (trim_threshold, 2**31 - 1), (top_pad, 2**28))
    return all(mallopt(name, value) for name, value in settings)
