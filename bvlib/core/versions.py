"""What a result depends on beside its arguments: versions of recipes and libraries, device,
threads.

Importing this does not import torch.
"""

import functools
import importlib.metadata
import platform
from collections.abc import Iterable
from typing import Any

# Versions of recipes. A recipe is whatever makes results: a registered method ("attack:badnets",
# "merging:ties", "trigger:universal", ...), "training:finetune" (the loop, its schedule and
# batches),
# "training:evading", "world:toy" (the images), "admission", "notebook:01_badmerging" (its analysis,
# with what it calls in bvlib.study). All begin at 1. Raise one when its results are meant to
# change, and say so in CHANGELOG.md; golden values show that results did not change otherwise.
# They stand here and not beside the methods, as `bv report` asks for them without importing those.
VERSIONS: dict[str, int | str] = {
    "attack:badmerging-off": 2,
    "attack:label-consistent": 2,
    "attack:off-no-augmentation": 2,
    "attack:off-no-interpolation": 2,
    "attack:off-no-shadow": 2,
    "attack:off-no-trigger": 2,
    "defence:dam": 2,
    "defence:fine-pruning": 2,
    "defence:fine-tuning": 2,
    "defence:lfpm": 2,
    "defence:tbar": 2,
    "detector:neural-cleanse": 2,
    "merging:adamerging_layerwise": 2,
    "merging:adamerging_taskwise": 2,
    "merging:regmean": 2,
    "merging:surgery": 2,
    "notebook:01_badmerging": 2,
    "notebook:02_bv_computation": 2,
    "notebook:03_sbv_attack": 2,
    "notebook:08_vectors_in_full": 2,
    "training:finetune": 2,
    "trigger:off-plain": 2,
    "trigger:off-universal": 2,
    "trigger:trojan": 2,
    "trigger:universal": 3,
}


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
