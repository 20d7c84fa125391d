"""The papers' datasets at their scale: listed, fetched, prepared as arrays, checked, and loaded.

    data.fetch("pets", "raw")               # download, check the hash, unpack
    data.prepare("pets", "raw", "cache")    # resize once: cache/pets/*.npy and a card
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

from bvlib.core.errors import BvError, MissingData
from bvlib.files.safe import file_sha256, locked, write_json, writing
from bvlib.worlds import images
from bvlib.worlds.papers.check import check, expect, find_cache
from bvlib.worlds.papers.fetch import digests, fetch, need_room, unpack_present
from bvlib.worlds.papers.readers import READERS
from bvlib.worlds.papers.table import describe, prompts, row
from bvlib.worlds.papers.write import PARTS, SPLITS, write_split
from bvlib.worlds.source import Items, Listing
from bvlib.worlds.table import DatasetInfo
from bvlib.worlds.tasks import Split, Task

__all__ = [
    "PaperTask",
    "check",
    "describe",
    "fetch",
    "listing",
    "load",
    "prepare",
    "prompts",
]

MOST_LEFT_OUT = 0.01  # of train; more of it in test means another archive, not a few twins
RESIZE = "bicubic, short side, then the square in the middle (as CLIP)"


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
    """Where caches lie: ``paper/`` in the data folder (:func:`bvlib.images.data_folder`)."""
    return images.data_folder() / "paper"


def listing(name: str, folder: str | Path) -> Listing:
    """What ``folder`` holds of dataset ``name``; archives lying there are checked and unpacked.

    Raises MissingData when a file or folder is not there, BvError when one is damaged or not what
    it should be.
    """
    row(name)
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        way = f"bring the dataset with bv data fetch {name} --to FOLDER"
        raise MissingData(f"no folder {folder}: {way}")
    unpack_present(name, folder)
    return READERS[name](folder)


def prepare(
    name: str,
    folder: str | Path,
    out: str | Path,
    *,
    size: int = 224,
    limit: int | None = None,
    seed: int = 0,
) -> Path:
    """Make the cache ``out/name`` of what ``folder`` holds; its path. A finished one is kept.

    Images are prepared as CLIP does: the short side to ``size`` pixels (bicubic), then the square
    in the middle. The dev split is that of the papers' code for ``seed`` (torch's random_split).
    ``limit`` keeps that many images a split, drawn with the seed. Training images whose pixels are
    also a test image are left out, and the card says how many. An interrupted call goes on where it
    was; the same source gives the same bytes.

    Raises MissingData or BvError when the source is not there, damaged, or (without ``limit``) not
    of the counts that the table expects; BvError when there is another cache at that place, no
    room, or too much of train in test.
    """
    one, cache = row(name), Path(out).expanduser() / name
    if size < 1 or (limit is not None and limit < 1):
        raise BvError(f"size {size} and limit {limit}: give 1 or more (limit None for all)")
    how = {"name": name, "size": size, "limit": limit, "seed": seed}
    if _made(cache, how):
        return cache
    source = listing(name, folder)
    notes = expect(one, source, strict=limit is None)
    splits = _splits(one, source, limit, seed)
    told = {"classnames": source.classnames, "prompts": list(prompts(name)), "notes": notes}
    told |= {key: getattr(one, key) for key in ("source", "split", "licence")}
    told |= {"source_counts": source.counts(), "resize": RESIZE}
    told["archives"] = digests(name, Path(folder).expanduser())
    waiting = f"waiting for another process that prepares {name}"
    with writing(cache), locked(cache / ".lock", waiting):
        if not _made(cache, how):
            drafts = sum(f.stat().st_size for f in cache.iterdir() if f.is_file())
            needed = sum(map(len, splits.values())) * 3 * size * size - drafts
            mend = "make room, name another out, or give a limit or a smaller size"
            need_room(name, needed, cache, mend)
            write_json(cache / "card.json", how | told | _write(cache, splits, how))
            _forget(cache)
    check(name, cache)
    return cache


def load(
    name: str, folder: str | Path, sizes: dict[str, int | None] | None = None, seed: int = 0
) -> PaperTask:
    """The prepared dataset as a task: at most ``sizes["train"]``, ``["dev"]``, ``["test"]`` images.

    None stands for all of a split. Images (N, size, size, 3) uint8 are tensors over the files
    (changing them changes no file); labels (N,) int64. ``folder`` is the ``out`` of
    :func:`prepare` or the cache itself, ``seed`` that of the preparation. :func:`check` runs first.

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


def _splits(one: DatasetInfo, source: Listing, limit: int | None, seed: int) -> dict[str, Items]:
    """Train and dev in the order of torch's random_split (train first), test in its own."""

    def shuffled(n: int) -> np.ndarray:
        return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()

    def few(items: Items, rows: np.ndarray | None = None) -> Items:
        rows = np.arange(len(items)) if rows is None else rows
        return items.pick(rows if limit is None else rows[np.sort(shuffled(len(rows))[:limit])])

    order = shuffled(len(source.train))
    train, dev = np.split(order, [len(order) - one.drawn_dev(len(order))])
    dev = few(source.train, dev) if source.dev is None else few(source.dev)
    return {"train": source.train.pick(train[:limit]), "dev": dev, "test": few(source.test)}


def _write(cache: Path, splits: dict[str, Items], how: dict[str, Any]) -> dict[str, Any]:
    """Write all splits, test first: the others leave out what is in it. Part of the card."""
    test, left, key = {}, {}, f"{how['seed']} {how['limit']}"
    for part in reversed(SPLITS):
        items = splits[part]
        left[part] = write_split(cache, part, items, how["size"], test, key)
        marks = np.load(cache / "test_hashes.npy")
        test = test or {bytes(mark): items.name(i) for i, mark in enumerate(marks)}
        if len(left[part]) > MOST_LEFT_OUT * len(items) + 1:
            _forget(cache)
            first = " is ".join(left[part][0])
            what = f"{len(left[part])} of {len(items)} {part} images are also test images"
            mend = "train and test are not those of the dataset; fetch it again"
            raise BvError(f"{cache.name}: {what} (first: {first}): {mend}")
    counts = {part: len(splits[part]) - len(names) for part, names in left.items()}
    del left["test"]
    names = [f"{part}_{kind}.npy" for part in SPLITS for kind in PARTS]
    sha256 = {name: file_sha256(cache / name) for name in names}
    return {"counts": counts, "left_out": left, "sha256": sha256}


def _made(cache: Path, how: dict[str, Any]) -> bool:
    """Whether the cache is finished. Raises BvError when it was made otherwise."""
    if not (cache / "card.json").is_file():
        return False
    card = find_cache(how["name"], cache)[1]
    if other := [key for key in how if card[key] != how[key]]:
        old, new = (", ".join(f"{key} {one[key]}" for key in other) for one in (card, how))
        mend = "give another out, or delete it first"
        raise BvError(f"{cache} was prepared with {old}, not {new}: {mend}")
    return True


def _forget(cache: Path) -> None:
    for draft in cache.glob(".*.part"):
        draft.unlink()
