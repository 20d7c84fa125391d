"""Tasks: images, labels, class names and prompts, split into train, dev and test.

A task comes from the toy world, from the handwritten digits that scikit-learn carries, or from a
prepared file of real images (:mod:`bvlib.worlds.images`). Dev is carved out of train, never out of
test; a defence chooses on dev alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from bvlib.core.errors import BvError, unknown
from bvlib.core.rng import generator, numpy_rng
from bvlib.worlds import images, toy

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
        if which not in cut:
            raise unknown("half", which, cut)
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

    def check_class(self, target: int) -> int:
        """The class index itself. Raises BvError when the task has no such class."""
        if not 0 <= target < len(self.classnames):
            raise BvError(
                f"target_class {target} is not a class of {self.name!r}: it has 0 to "
                f"{len(self.classnames) - 1}"
            )
        return target


def known() -> list[str]:
    """Names of all tasks that :func:`load` takes."""
    return [
        *toy.TASKS,
        HANDWRITTEN,
        *(n for n in images.names() if n not in images.BASE_ONLY),
    ]


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

        def draw() -> dict[str, torch.Tensor]:
            made = {s: toy.task_arrays(name, s, n, seed) for s, n in sizes.items()}
            return {
                f"{s}_{part}": torch.from_numpy(a)
                for s, pair in made.items()
                for part, a in zip(("images", "labels"), pair)
            }

        tensors = keep(name, sizes, seed, draw) if keep else draw()
        splits = {s: Split(tensors[f"{s}_images"], tensors[f"{s}_labels"]) for s in sizes}
        return Task(
            name,
            tuple(toy.KINDS[name]),
            tuple(toy.PROMPTS[name]),
            **splits,
            licence="MIT (made here)",
        )
    if name == HANDWRITTEN:
        return _handwritten(sizes)
    if name not in known():
        raise unknown("task", name, known())
    arrays, info = images.load(name), images.describe(name)
    order = numpy_rng(seed, "dev split", name).permutation(len(arrays.train_labels))
    dev, train = order[: sizes["dev"]], order[sizes["dev"] :][: sizes["train"]]

    def pick(images, labels, index):
        return Split(torch.from_numpy(images[index]), torch.from_numpy(labels[index]))

    return Task(
        name,
        tuple(arrays.classnames),
        tuple(arrays.templates),
        pick(arrays.train_images, arrays.train_labels, train),
        pick(arrays.train_images, arrays.train_labels, dev),
        pick(
            arrays.test_images,
            arrays.test_labels,
            np.arange(min(sizes["test"], len(arrays.test_labels))),
        ),
        info.licence,
    )


def _handwritten(sizes: dict[str, int]) -> Task:
    """scikit-learn's 8 x 8 digits, drawn three times larger in the middle of a canvas.

    The rows come writer by writer, so contiguous blocks hold out writers: 1100 train, 200 dev, 497
    test.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.zeros((len(digits.images), 32, 32), np.uint8)
    images[:, 4:28, 4:28] = (
        np.clip(digits.images * 16, 0, 255).astype(np.uint8).repeat(3, 1).repeat(3, 2)
    )
    images = np.repeat(images[..., None], 3, -1)
    starts = {"train": 0, "dev": 1100, "test": 1300}
    ends = {"train": 1100, "dev": 1300, "test": len(images)}
    splits = {}
    for split, start in starts.items():
        stop = min(ends[split], start + sizes[split])
        splits[split] = Split(
            torch.from_numpy(images[start:stop]),
            torch.from_numpy(digits.target[start:stop].astype(np.int64)),
        )
    return Task(
        HANDWRITTEN,
        tuple(toy.NUMBER_WORDS),
        tuple(toy.PROMPTS["digits"]),
        **splits,
        licence="UCI, CC BY 4.0, as shipped with scikit-learn",
    )
