"""The papers' datasets at paper scale: listed, fetched, prepared once as memory-mapped arrays,
checked, and loaded.

    paper_data.fetch("pets", "raw")                  # download, check the hash, unpack
    paper_data.prepare("pets", "raw", "cache")       # resize once:
    cache/pets/{train,dev,test}_images.npy and a card task = paper_data.load("pets", "cache")
    # a Task whose images stay on disk

A cache holds, for each split, ``SPLIT_images.npy`` (N, size, size, 3) uint8, ``SPLIT_labels.npy``
(N,) int64, ``SPLIT_hashes.npy`` (N, 16) uint8 (a hash of each image's pixels) and
``SPLIT_rows.npy`` (N,) int64 (its place in the source). ``card.json`` is written last: without it
a cache does not count as made. Training images lie in the order of the seeded dev split, so that
train and dev are plain slices of what is on disk and nothing is read before it is used.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bvlib.core.errors import BvError, MissingData
from bvlib.files.safe import file_sha256, locked, write_json
from bvlib.worlds import images
from bvlib.worlds.papers import arrays, folders
from bvlib.worlds.papers.fetch import Progress, bars, digests, fetch, unpack_present
from bvlib.worlds.papers.source import Items, Listing
from bvlib.worlds.papers.table import Row, describe, prompts, row
from bvlib.worlds.papers.write import PARTS, SPLITS, write_split
from bvlib.worlds.tasks import Split, Task

__all__ = [
    "PaperTask",
    "bars",
    "check",
    "describe",
    "fetch",
    "listing",
    "load",
    "prepare",
    "prompts",
]

READERS = {**arrays.READERS, **folders.READERS}
CARD = (
    "name",
    "size",
    "limit",
    "seed",
    "classnames",
    "prompts",
    "notes",
    "counts",
    "left_out",
    "source_counts",
    "sha256",
)
MOST_LEFT_OUT = (
    0.01  # of the training images; more of them in test means another archive, not a few twins
)


@dataclass(frozen=True)
class PaperTask(Task):
    """A :class:`~bvlib.worlds.tasks.Task` with images on disk; ``card`` is that of its cache."""

    card: dict[str, Any] = field(default_factory=dict, compare=False)

    @cached_property
    def digest(self) -> str:
        """Hash of the task from the card's hashes, the labels, and a few images of each split: no
        image file is read whole."""
        h = hashlib.sha256(
            repr(
                (self.name, self.classnames, self.prompts, sorted(self.card["sha256"].items()))
            ).encode()
        )
        for split in (self.train, self.dev, self.test):
            h.update(split.labels.numpy().tobytes())
            for i in np.unique(np.linspace(0, max(len(split) - 1, 0), 16).astype(int))[
                : len(split)
            ]:
                h.update(split.images[int(i)].numpy().tobytes())
        return h.hexdigest()[:16]


def folder() -> Path:
    """Where caches lie: ``paper/`` in the data folder (:func:`bvlib.worlds.images.data_folder`)."""
    return images.data_folder() / "paper"


def listing(name: str, folder: str | Path) -> Listing:
    """What ``folder`` holds of dataset ``name`` in its own layout; archives lying there are
    checked and unpacked first.

    Raises MissingData when a file or folder is not there, BvError when one is damaged or not what
    it should be.
    """
    row(name)
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise MissingData(
            f"no folder {folder}: bring the dataset with bv data fetch {name} --to FOLDER"
        )
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
    progress: Progress | None = None,
) -> Path:
    """Make the cache ``out/name`` of what ``folder`` holds; its path. A finished one is returned
    as it is.

    Images are prepared as CLIP does: the short side to ``size`` pixels (bicubic), then the square
    in the middle. The dev split is that of the papers' code for ``seed`` (torch's random_split).
    ``limit`` keeps that many images a split, drawn with the seed. Training images whose pixels are
    also a test image are left out, and the card says how many. An interrupted call goes on where
    it was; the same source gives the same bytes. ``progress(what, done, total)`` counts images.

    Raises MissingData or BvError when the source is not there, damaged, or (without ``limit``) not
    of the counts that the table expects; BvError when there is another cache at that place, no
    room, or too much of train in test.
    """
    one, cache = row(name), Path(out).expanduser() / name
    if size < 1 or (limit is not None and limit < 1):
        raise BvError(
            f"size {size} and limit {limit} do not serve: give 1 or more (limit None for all)"
        )
    how = {"size": size, "limit": limit, "seed": seed}
    if _made(name, cache, how):
        return cache
    source = listing(name, folder)
    notes = _expect(one, source, strict=limit is None)
    splits = _splits(one, source, limit, seed)
    try:
        with locked(cache / ".lock", f"waiting for another process that prepares {name}"):
            if not _made(name, cache, how):
                _room(cache, sum(map(len, splits.values())) * 3 * size * size)
                card = {
                    "name": name,
                    **how,
                    "classnames": source.classnames,
                    "prompts": list(prompts(name)),
                    "notes": notes,
                    "source_counts": _counts(source),
                    "archives": digests(name, Path(folder).expanduser()),
                    "source": one.source,
                    "split": one.split,
                    "licence": one.licence,
                    "resize": "bicubic, short side, then the square in the middle (as CLIP)",
                }
                write_json(cache / "card.json", card | _write(cache, splits, how, progress))
                _forget(cache)
    except OSError as error:
        raise BvError(
            f"cannot write in {cache} ({error.strerror or error}): make room there or name "
            "another out"
        ) from None
    check(name, cache)
    return cache


def check(name: str, cache: str | Path, pixels: bool = False) -> list[str]:
    """Whether a cache may be reported on; remarks in words (a limit, twins left out), none when
    there is nothing to say.

    Counts must be those of the table (without a limit), labels in range, no image in both train or
    dev and test. The hashes made from the pixels at preparation are compared; ``pixels`` makes
    them again from every image, which reads all.

    Raises MissingData when there is no finished cache, BvError (with how many and which first)
    when one of these fails.
    """
    one, cache = row(name), _place(name, cache)
    card, again = _card(name, cache), f"delete {cache} and prepare it again"
    arrays = {
        (part, kind): _array(cache / f"{part}_{kind}.npy", again)
        for part in SPLITS
        for kind in PARTS
    }
    for (part, kind), array in arrays.items():
        if len(array) != card["counts"][part]:
            raise BvError(
                f"{cache}/{part}_{kind}.npy has {len(array)} rows, not the {card['counts'][part]} "
                f"of its card: {again}"
            )
        if (
            kind != "images"
            and file_sha256(cache / f"{part}_{kind}.npy") != card["sha256"][f"{part}_{kind}.npy"]
        ):
            raise BvError(
                f"{cache}/{part}_{kind}.npy is not the file that its card describes: {again}"
            )
    if card["limit"] is None:
        _expect_counts(one, card["source_counts"], len(card["classnames"]), strict=True)
        drawn = one.drawn_dev(card["source_counts"]["train"])
        whole = {
            "train": card["source_counts"]["train"] - drawn,
            "dev": card["source_counts"].get("dev", drawn),
            "test": one.test,
        }
        for part, count in whole.items():
            if card["counts"][part] + len(card["left_out"].get(part, [])) != count:
                raise BvError(
                    f"{cache} holds {card['counts'][part]} {part} images where {count} are "
                    f"expected: {again}"
                )
    hashes = {}
    for part in SPLITS:
        labels, images = arrays[part, "labels"], arrays[part, "images"]
        if len(labels) and (labels.min() < 0 or labels.max() >= len(card["classnames"])):
            raise BvError(
                f"{cache}: {part} labels reach from {labels.min()} to {labels.max()}, outside "
                f"0..{len(card['classnames']) - 1}: {again}"
            )
        hashes[part] = list(map(bytes, arrays[part, "hashes"]))
        if pixels:
            if wrong := [
                i for i, image in enumerate(images) if images.image_hash(image) != hashes[part][i]
            ]:
                raise BvError(
                    f"{cache}: {len(wrong)} {part} images are not those that were prepared "
                    f"(first: row {wrong[0]}): {again}"
                )
    place = {h: i for i, h in enumerate(hashes["test"])}
    for part in ("train", "dev"):
        if twins := [(i, place[h]) for i, h in enumerate(hashes[part]) if h in place]:
            raise BvError(
                f"{cache}: {len(twins)} {part} images are also test images (first: {part} row "
                f"{twins[0][0]} is test row "
                f"{twins[0][1]}): {again}"
            )
    limited = (
        [f"limited to {card['limit']} images a split: no numbers of the whole dataset"]
        if card["limit"]
        else []
    )
    twins = [
        f"{len(left)} {part} images left out, as they are also test images"
        for part, left in card["left_out"].items()
        if left
    ]
    return [*limited, *card["notes"], *twins]


def load(
    name: str, folder: str | Path, sizes: dict[str, int | None] | None = None, seed: int = 0
) -> PaperTask:
    """The prepared dataset as a task: at most ``sizes["train"]``, ``["dev"]``, ``["test"]`` images
    (None: all) of the splits.

    Images (N, size, size, 3) uint8 are tensors over the files (changing them changes no file);
    labels (N,) int64. ``folder`` is the ``out`` of :func:`prepare` or the cache itself, ``seed``
    that of the preparation. :func:`check` runs first.

    Raises MissingData when it was not prepared, BvError when the check fails or the cache has
    another seed's split.
    """
    cache, sizes = _place(name, folder), sizes or {}
    check(name, cache)
    card = _card(name, cache)
    if card["seed"] != seed:
        raise BvError(
            f"{cache} has the split of seed {card['seed']}, not {seed}: ask for that seed, or "
            f"prepare another with seed={seed}"
        )

    def split(part: str) -> Split:
        images, labels = (
            np.load(cache / f"{part}_{kind}.npy", mmap_mode="c" if kind == "images" else None)
            for kind in ("images", "labels")
        )
        count = len(labels) if sizes.get(part) is None else min(sizes[part], len(labels))
        return Split(torch.from_numpy(images[:count]), torch.from_numpy(labels[:count]))

    return PaperTask(
        name,
        tuple(card["classnames"]),
        tuple(card["prompts"]),
        **{part: split(part) for part in SPLITS},
        licence=row(name).licence,
        card=card,
    )


def _splits(one: Row, source: Listing, limit: int | None, seed: int) -> dict[str, Items]:
    """Train and dev in the order of torch's random_split (train first, dev last), test in its
    own."""

    def shuffled(n: int) -> np.ndarray:
        return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()

    def few(index: np.ndarray) -> np.ndarray:
        return index if limit is None else index[np.sort(shuffled(len(index))[:limit])]

    order = shuffled(len(source.train))
    cut = len(order) - one.drawn_dev(len(order))
    dev = (
        source.train.pick(few(order[cut:]))
        if source.dev is None
        else source.dev.pick(few(np.arange(len(source.dev))))
    )
    return {
        "train": source.train.pick(order[:cut][:limit]),
        "dev": dev,
        "test": source.test.pick(few(np.arange(len(source.test)))),
    }


def _write(
    cache: Path, splits: dict[str, Items], how: dict[str, Any], progress: Progress | None
) -> dict[str, Any]:
    """Write all splits, test first: train and dev leave out what is in it. Gives what the card
    says of them."""
    test, counts, left = {}, {}, {}
    for part in reversed(SPLITS):
        made = write_split(
            cache, part, splits[part], how["size"], test, progress, f"{how['seed']} {how['limit']}"
        )
        counts[part] = made["count"]
        if part == "test":
            test = {
                bytes(h): splits["test"].name(i)
                for i, h in enumerate(np.load(cache / "test_hashes.npy"))
            }
            continue
        left[part] = made["left_out"]
        if len(left[part]) > MOST_LEFT_OUT * len(splits[part]) + 1:
            _forget(cache)
            raise BvError(
                f"{cache.name}: {len(left[part])} of {len(splits[part])} {part} images are also "
                "test images (first: "
                f"{' is '.join(left[part][0])}): train and test are not those of the dataset; "
                "fetch it again"
            )
    names = [f"{part}_{kind}.npy" for part in SPLITS for kind in PARTS]
    return {
        "counts": counts,
        "left_out": left,
        "sha256": {name: file_sha256(cache / name) for name in names},
    }


def _counts(source: Listing) -> dict[str, int]:
    return {part: len(items) for part in SPLITS if (items := getattr(source, part)) is not None}


def _expect(one: Row, source: Listing, strict: bool) -> list[str]:
    """Raise BvError when the source is not what the table says; without ``strict``, say so in
    words instead."""
    counts, classes = _counts(source), len(source.classnames)
    for part, items in (("train", source.train), ("test", source.test)):
        seen = Counter(items.labels.tolist())
        if not len(items) or min(seen) < 0 or max(seen) >= classes:
            raise BvError(
                f"{one.name}: {part} has {len(items)} images with labels from "
                f"{min(seen, default=0)} to "
                f"{max(seen, default=0)} for {classes} classes: another archive, or a partial "
                "one; fetch it again"
            )
        if strict and (
            empty := [c for label, c in enumerate(source.classnames) if label not in seen]
        ):
            raise BvError(
                f"{one.name}: no {part} image of {len(empty)} of {classes} classes (first: "
                f"{empty[0]!r}): the archive is "
                "partial; delete it and fetch it again"
            )
    return _expect_counts(one, counts, classes, strict)


def _expect_counts(one: Row, counts: dict[str, int], classes: int, strict: bool) -> list[str]:
    wanted = {"classes": one.classes, "train": one.train, "test": one.test} | (
        {"dev": one.dev} if one.dev else {}
    )
    found = {"classes": classes} | counts
    notes = []
    for what, want in wanted.items():
        low, high = want if isinstance(want, tuple) else (want, want)
        if not low <= found[what] <= high:
            text = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            notes.append(
                f"{one.name} has {found[what]:,} "
                f"{what if what == 'classes' else what + ' images'} where {text} are expected"
            )
    if notes and strict:
        raise BvError(
            f"{notes[0]}: a partial or another archive; delete it and fetch it again, or give a "
            "limit for a trial"
        )
    return notes


def _room(cache: Path, needed: int) -> None:
    drafts = sum(f.stat().st_size for f in cache.iterdir() if f.is_file())
    free = shutil.disk_usage(cache).free
    if needed - drafts > free:
        raise BvError(
            f"{cache} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: make room, "
            "name another out, or "
            "give a limit or a smaller size"
        )


def _made(name: str, cache: Path, how: dict[str, Any]) -> bool:
    """Whether the cache is finished. Raises BvError when it was made otherwise."""
    if not (cache / "card.json").is_file():
        return False
    if (old := {key: _card(name, cache)[key] for key in how}) != how:
        said = [", ".join(f"{key} {value}" for key, value in each.items()) for each in (old, how)]
        raise BvError(
            f"{cache} was prepared with {said[0]}, not {said[1]}: give another out, or delete it "
            "first"
        )
    return True


def _forget(cache: Path) -> None:
    for trace in cache.glob(".*.json"):
        trace.unlink()


def _place(name: str, folder: str | Path) -> Path:
    row(name)
    folder = Path(folder).expanduser()
    cache = folder if (folder / "card.json").is_file() else folder / name
    if not (cache / "card.json").is_file():
        raise MissingData(
            f"no prepared {name} in {folder}: make it with bv data prepare {name} --paper --from "
            "RAW_FOLDER"
        )
    return cache


def _card(name: str, cache: Path) -> dict[str, Any]:
    try:
        card = json.loads((cache / "card.json").read_text(encoding="utf-8"))
        if lacking := [key for key in CARD if key not in card]:
            raise ValueError(lacking)
    except (ValueError, TypeError):
        raise BvError(
            f"{cache / 'card.json'} is damaged: delete {cache} and prepare it again"
        ) from None
    if card["name"] != name:
        raise BvError(
            f"{cache} is the cache of {card['name']!r}, not of {name!r}: give that of {name!r}"
        )
    return card


def _array(path: Path, again: str) -> np.ndarray:
    try:
        return np.load(
            path, mmap_mode="r" if path.name.endswith("_images.npy") else None, allow_pickle=False
        )
    except (OSError, ValueError, EOFError):
        raise BvError(f"{path} is missing, cut short or no array: {again}") from None
