"""Where computing happens, and how much memory it took."""

import sys

import torch


def default_device() -> torch.device:
    """The device everything runs on: a GPU when there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def peak_memory() -> int:
    """The most memory (bytes) that this process has held so far: the GPU's when there is one, else
    the main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        import psutil  # comes with ipykernel

        return psutil.Process().memory_info().peak_wset
    import resource

    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else 1024 * held
