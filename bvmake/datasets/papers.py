"""The papers' datasets at their scale: fetched, listed, and prepared once as arrays on disk.

    fetch("pets", "raw")               # download, check the hash, unpack
    prepare("pets", "raw", "cache")    # resize once: cache/pets/*.npy and a card

What a cache holds, ``bvlib.worlds.papers.data`` tells, which loads it as a task.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bvlib.core.errors import BvError, MissingData
from bvlib.files.safe import file_sha256, locked, write_json, writing
from bvlib.worlds.images import outside
from bvlib.worlds.papers.check import PARTS, SPLITS, check, expect_counts, find_cache
from bvlib.worlds.papers.table import prompts, row
from bvlib.worlds.table import DatasetInfo
from bvmake.datasets.fetch import digests, fetch, need_room, unpack_present
from bvmake.datasets.readers import READERS
from bvmake.datasets.source import Items, Listing
from bvmake.datasets.write import write_split

__all__ = ["fetch", "listing", "prepare"]

MOST_LEFT_OUT = 0.01  # of train; more of it in test means another archive, not a few twins
RESIZE = "bicubic, short side, then the square in the middle (as CLIP)"


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
    notes = _expect(one, source, strict=limit is None)
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


def _expect(one: DatasetInfo, source: Listing, strict: bool) -> list[str]:
    """Raise BvError when the source is not what the table says.

    Without ``strict``, other counts than those of the table are said in words instead.
    """
    classes, mend = len(source.classnames), "delete it and fetch it again"
    for part, items in source.splits().items():
        wrong = f"{part} {told}" if (told := outside(items.labels, classes)) else ""
        lone = sorted(set(range(classes)) - set(items.labels.tolist()))
        if not len(items):
            wrong = f"no {part} images"
        elif strict and not wrong and lone and part != "dev":
            first = f"first: {source.classnames[lone[0]]!r}"
            wrong = f"no {part} image of {len(lone)} of {classes} classes ({first})"
        if wrong:
            raise BvError(f"{one.name}: {wrong}: a partial or another archive; {mend}")
    return expect_counts(one, source.counts(), classes, strict)


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
