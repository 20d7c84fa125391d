"""The papers' datasets at their scale, as tasks: what ``bvmake.datasets.papers`` prepared, loaded.

    task = data.load("pets", "cache")       # a Task whose images stay on disk

A cache holds, for each split, ``SPLIT_images.npy`` (N, size, size, 3) uint8, ``SPLIT_labels.npy``
(N,) int64, ``SPLIT_hashes.npy`` (N, 16) uint8 (a hash of each image's pixels) and
``SPLIT_rows.npy`` (N,) int64 (its place in the source). ``card.json`` is written last: without it a
cache does not count as made. Training images lie in the order of the seeded dev split, so that
train and dev are plain slices of what is on disk and nothing is read before it is used.
"""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bvlib.core.errors import BvError
from bvlib.worlds import images
from bvlib.worlds.papers.check import SPLITS, check, find_cache
from bvlib.worlds.papers.table import row
from bvlib.worlds.tasks import Split, Task


@dataclass(frozen=True)
class PaperTask(Task):
    """A :class:`~bvlib.worlds.tasks.Task` with images on disk; ``card`` is that of its cache."""

    card: dict[str, Any] = field(default_factory=dict, compare=False)

    @cached_property
    def digest(self) -> str:
        """Hash of the task: from the card's hashes, the labels, and a few images of each split.

        No image file is read whole.
        """
        named = (self.name, self.classnames, self.prompts, sorted(self.card["sha256"].items()))
        h = hashlib.sha256(repr(named).encode())
        for split in (self.train, self.dev, self.test):
            h.update(split.labels.numpy().tobytes())
            few = np.linspace(0, max(len(split) - 1, 0), 16).astype(int)
            for i in np.unique(few)[: len(split)]:
                h.update(split.images[int(i)].numpy().tobytes())
        return h.hexdigest()[:16]


def folder() -> Path:
    """Where caches lie: ``paper/`` in the data folder (:func:`bvlib.worlds.images.data_folder`)."""
    return images.data_folder() / "paper"


def load(
    name: str, folder: str | Path, sizes: dict[str, int | None] | None = None, seed: int = 0
) -> PaperTask:
    """The prepared dataset as a task: at most ``sizes["train"]``, ``["dev"]``, ``["test"]`` images.

    None stands for all of a split. Images (N, size, size, 3) uint8 are tensors over the files
    (changing them changes no file); labels (N,) int64. ``folder`` is the ``out`` of the
    preparation or the cache itself, ``seed`` that of the preparation. :func:`check` runs first.

    Raises MissingData when it was not prepared, BvError when the check fails or the cache has
    another seed's split.
    """
    (cache, card), sizes = find_cache(name, folder), sizes or {}
    check(name, cache)
    if card["seed"] != seed:
        mend = f"ask for that seed, or prepare another with seed={seed}"
        raise BvError(f"{cache} has the split of seed {card['seed']}, not {seed}: {mend}")

    def split(part: str) -> Split:
        images = np.load(cache / f"{part}_images.npy", mmap_mode="c")[: sizes.get(part)]
        labels = np.load(cache / f"{part}_labels.npy")[: sizes.get(part)]
        return Split(torch.from_numpy(images), torch.from_numpy(labels))

    told = {"licence": row(name).licence, "card": card} | {part: split(part) for part in SPLITS}
    return PaperTask(name, tuple(card["classnames"]), tuple(card["prompts"]), **told)
