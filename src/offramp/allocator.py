"""The process's memory allocator, tuned by command lines only, never by the library."""

import ctypes
import sys


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory; return whether that was possible.

    Torch's convolutions allocate and free large blocks, and the kernel may map, zero and unmap each
    of them. That can halve the throughput of a small network on a CPU, depending on the layout
    of the heap. Without glibc this does nothing.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # M_* of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    settings = ((mmap_threshold, 2**30), (trim_threshold, 2**31 - 1), (top_pad, 2**28))
    return all(mallopt(name, value) for name, value in settings)
