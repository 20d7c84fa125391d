"""What a result depends on beside its arguments: versions of recipes and libraries, device,
threads.

Importing this does not import torch.
"""

import functools
import importlib.metadata
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

# by name of the recipe, those that were raised; a plugin's methods bring theirs (core.registry)
VERSIONS: dict[str, int | str] = yaml.safe_load(
    Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
)


def recipe(name: str) -> str:
    """A recipe with its present version, as keys and cards name it: "training:finetune/1"."""
    return f"{name}/{VERSIONS.get(name, 1)}"


def raised(recipes: Iterable[str]) -> list[str]:
    """Those of the recipes ("attack:badnets/1") that have moved on since: "attack:badnets is at
    2"."""
    names = [(each, each.rpartition("/")[0]) for each in recipes]
    return [f"{name} is at {VERSIONS.get(name, 1)}" for each, name in names if recipe(name) != each]


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
