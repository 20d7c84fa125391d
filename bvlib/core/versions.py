"""What a result depends on beside its arguments: versions, kind of device, number of threads.

Importing this does not import torch.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from typing import Any


def environment(device: str = "cpu", threads: int | None = None) -> dict[str, Any]:
    """What a result depends on beside arguments and code: versions, device type, number of
    threads."""
    if threads is None:
        import torch

        threads = torch.get_num_threads()
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
        **{name: _version(name) for name in ("torch", "open_clip_torch", "numpy")},
        "device": device.split(":")[0],
        "threads": threads,
    }


@functools.cache
def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"
