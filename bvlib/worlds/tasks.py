"""Tasks: images, labels, class names and prompts, split into train, dev and test.

A task comes from the toy world, from the handwritten digits that scikit-learn carries, or from a
prepared file of real images (:mod:`bvlib.worlds.images`). Dev is carved out of train, never out of
test; a defence chooses on dev alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from bvlib.core.errors import BvError, check_choice, unknown
from bvlib.core.rng import generator, numpy_rng
from bvlib.worlds import images, toy
from bvlib.worlds.table import SETS

log = logging.getLogger("bvlib")

HANDWRITTEN = "handwritten"
# Tasks whose images may be passed on inside a figure; the terms of the others do not allow it.
SHAREABLE = {*toy.TASKS, HANDWRITTEN, "mnist", "fashion_mnist"}


@dataclass(frozen=True)
class Split:
    """Images (N, H, W, 3) uint8 and labels (N,) int64."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def half(self, which: str, seed: int = 0) -> Split:
        """Half "a" (the attacker's data) or "b" (the defender's): disjoint, the same cut for a
        seed."""
        order = torch.randperm(len(self), generator=generator(seed, "halves"))
        cut = {"a": order[: len(self) // 2], "b": order[len(self) // 2 :]}
        check_choice("half", which, cut)
        return Split(self.images[cut[which]], self.labels[cut[which]])


@dataclass(frozen=True)
class Task:
    """One classification task, with what its zero-shot head is built from."""

    name: str
    classnames: tuple[str, ...]
    prompts: tuple[str, ...]
    train: Split
    dev: Split
    test: Split
    licence: str = ""

    def few(self, count: int) -> Task:
        """The same task with its first ``count`` test images only, for what needs many passes an
        image."""
        return replace(self, test=Split(self.test.images[:count], self.test.labels[:count]))

    @cached_property
    def digest(self) -> str:
        """Hash of everything in the task: part of the key of what is made from it."""
        h = hashlib.sha256(repr((self.name, self.classnames, self.prompts)).encode())
        for split in (self.train, self.dev, self.test):
            h.update(split.images.numpy().tobytes())
            h.update(split.labels.numpy().tobytes())
        return h.hexdigest()[:16]

    def check_class(self, target: int, named: str = "target_class") -> int:
        """The class index itself; ``named`` is the parameter that it comes from. Raises BvError
        when the task has no such class."""
        if not 0 <= target < len(self.classnames):
            has = f"it has 0 to {len(self.classnames) - 1}"
            raise BvError(f"{named} {target} is not a class of {self.name!r}: {has}")
        return target


def known() -> list[str]:
    """Names of all tasks that :func:`load` takes: not the sets that bases are trained on."""
    real = [name for name in images.names() if name not in SETS]
    return [*toy.TASKS, HANDWRITTEN, *real]


def load(
    name: str, sizes: dict[str, int], seed: int = 0, keep: Callable[..., dict] | None = None
) -> Task:
    """A task with at most ``sizes["train"]``, ``["dev"]`` and ``["test"]`` images, ``seed`` for
    what is drawn.

    Drawing toy images takes seconds: ``keep(name, sizes, seed, draw)`` may return kept tensors
    instead of calling ``draw()``. Raises BvError for an unknown name, MissingData when a prepared
    file is not there.
    """
    if name in toy.TASKS:
        return _toy(name, sizes, seed, keep)
    if name == HANDWRITTEN:
        return _handwritten(sizes)
    if name not in (there := known()):
        own = f"sets of your own are those in {images.data_folder()}"
        raise BvError(f"{unknown('task', name, there)}; {own}")
    arrays = images.load(name)
    order = numpy_rng(seed, "dev split", name).permutation(len(arrays.train_labels))
    share = len(order) // 4  # of a small set, most images are for training
    if sizes["dev"] and not share:
        raise BvError(
            f"{name} has {len(order)} train images: give 4 or more, a quarter becomes dev"
        )
    if sizes["dev"] > share:
        log.warning("%s: %s dev images, a quarter of its %s", name, share, len(order))
    dev, train = np.split(order, [min(sizes["dev"], share)])
    if lone := set(range(len(arrays.classnames))) - set(arrays.train_labels[train].tolist()):
        what = "%s: beside dev, no train image is left of class %r and %s more"
        log.warning(what, name, arrays.classnames[min(lone)], len(lone) - 1)
    train = train[: sizes["train"]]
    test = slice(sizes["test"])
    splits = {
        "train": _split(arrays.train_images[train], arrays.train_labels[train]),
        "dev": _split(arrays.train_images[dev], arrays.train_labels[dev]),
        "test": _split(arrays.test_images[test], arrays.test_labels[test]),
    }
    named = name, tuple(arrays.classnames), tuple(arrays.templates)
    return Task(*named, **splits, licence=images.describe(name).licence)


def _split(pictures: np.ndarray, labels: np.ndarray) -> Split:
    return Split(torch.from_numpy(pictures), torch.from_numpy(labels))


def _toy(name: str, sizes: dict[str, int], seed: int, keep: Callable[..., dict] | None) -> Task:
    def draw() -> dict[str, torch.Tensor]:
        tensors = {}
        for split, size in sizes.items():
            made = toy.task_arrays(name, split, size, seed)
            tensors[f"{split}_images"], tensors[f"{split}_labels"] = map(torch.from_numpy, made)
        return tensors

    tensors = keep(name, sizes, seed, draw) if keep else draw()
    splits = {s: Split(tensors[f"{s}_images"], tensors[f"{s}_labels"]) for s in sizes}
    named = name, tuple(toy.KINDS[name]), tuple(toy.PROMPTS[name])
    return Task(*named, **splits, licence="MIT (made here)")


def _handwritten(sizes: dict[str, int]) -> Task:
    """scikit-learn's 8 x 8 digits, drawn three times larger in the middle of a canvas.

    The rows come writer by writer, so contiguous blocks hold out writers: 1100 train, 200 dev, 497
    test.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.zeros((len(digits.images), 32, 32), np.uint8)
    large = np.clip(digits.images * 16, 0, 255).astype(np.uint8).repeat(3, 1).repeat(3, 2)
    images[:, 4:28, 4:28] = large
    images, labels = np.repeat(images[..., None], 3, -1), digits.target.astype(np.int64)
    splits = {}
    for split, start, end in (("train", 0, 1100), ("dev", 1100, 1300), ("test", 1300, len(images))):
        rows = slice(start, min(end, start + sizes[split]))
        splits[split] = _split(images[rows], labels[rows])
    named = HANDWRITTEN, tuple(toy.NUMBER_WORDS), tuple(toy.PROMPTS["digits"])
    return Task(*named, **splits, licence="UCI, CC BY 4.0, as shipped with scikit-learn")
