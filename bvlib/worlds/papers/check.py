"""Whether a cache is what its card and the table of the papers' datasets say."""

from pathlib import Path
from typing import Any

import numpy as np

from bvlib.core.errors import BvError, MissingData, told_as
from bvlib.files.safe import file_sha256, read_json
from bvlib.worlds.images import image_hash, outside
from bvlib.worlds.papers.table import row
from bvlib.worlds.table import DatasetInfo

SPLITS = ("train", "dev", "test")
PARTS = ("images", "labels", "hashes", "rows")  # a file of each for each split
CARD = [
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
]


def find_cache(name: str, folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """A finished cache of dataset ``name`` and its card; ``folder`` is the cache or holds it.

    Raises MissingData when there is none, BvError when the card is damaged or another dataset's.
    """
    row(name)
    folder = Path(folder).expanduser()
    cache = folder if (folder / "card.json").is_file() else folder / name
    if not (cache / "card.json").is_file():
        way = f"make it with bv data prepare {name} --paper --from RAW_FOLDER"
        raise MissingData(f"no prepared {name} in {folder}: {way}")
    with told_as(_again(cache, "/card.json is damaged"), ValueError, TypeError, KeyError):
        card = read_json(cache / "card.json")
        named = {key: card[key] for key in CARD}["name"]
    if named != name:
        raise BvError(f"{cache} is the cache of {named!r}, not of {name!r}: give that of {name!r}")
    return cache, card


def _again(cache: Path, what: str) -> BvError:
    return BvError(f"{cache}{what}: delete {cache} and prepare it again")


def check(name: str, cache: str | Path, pixels: bool = False) -> list[str]:
    """Whether a cache may be reported on; remarks in words (a limit, twins left out), if any.

    Counts must be those of the table (without a limit), labels in range, no image in both train or
    dev and test. The hashes made from the pixels at preparation are compared; ``pixels`` makes them
    again from every image, which reads all.

    Raises MissingData when there is no finished cache, BvError (with how many and which first) when
    one of these fails.
    """
    cache, card = find_cache(name, cache)
    classes = len(card["classnames"])
    if card["limit"] is None:
        expect_counts(row(name), card["source_counts"], classes, strict=True)
    parts = {part: [_array(cache, card, part, kind) for kind in PARTS] for part in SPLITS}
    place = {bytes(mark): i for i, mark in enumerate(parts["test"][PARTS.index("hashes")])}
    for part, (images, labels, hashes, _) in parts.items():
        if wrong := outside(labels, classes):
            raise _again(cache, f": {part} {wrong}")
        marks = list(map(bytes, hashes))
        made = map(image_hash, images if pixels else ())
        if wrong := [i for i, mark in enumerate(made) if mark != marks[i]]:
            what = f"images are not those that were prepared (first: row {wrong[0]})"
            raise _again(cache, f": {len(wrong)} {part} {what}")
        if twins := [i for i, mark in enumerate(marks) if part != "test" and mark in place]:
            first = f"first: {part} row {twins[0]} is test row {place[marks[twins[0]]]}"
            raise _again(cache, f": {len(twins)} {part} images are also test images ({first})")
    limited = f"limited to {card['limit']} images a split: no numbers of the whole dataset"
    remarks = [limited] if card["limit"] else []
    twins = "images left out, as they are also test images"
    left = [f"{len(names)} {part} {twins}" for part, names in card["left_out"].items() if names]
    return remarks + card["notes"] + left


def _array(cache: Path, card: dict[str, Any], part: str, kind: str) -> np.ndarray:
    """One file of a cache, images as they lie on disk. Raises BvError when it is another."""
    path, count = cache / f"{part}_{kind}.npy", card["counts"][part]
    none = _again(cache, f"/{path.name} is missing, cut short or no array")
    with told_as(none, OSError, ValueError, EOFError):
        array = np.load(path, mmap_mode="r" if kind == "images" else None, allow_pickle=False)
    if len(array) != count:
        raise _again(cache, f"/{path.name} has {len(array)} rows, not the {count} of its card")
    if kind != "images" and file_sha256(path) != card["sha256"][path.name]:
        raise _again(cache, f"/{path.name} is not the file that its card describes")
    return array


def expect_counts(
    one: DatasetInfo, counts: dict[str, int], classes: int, strict: bool
) -> list[str]:
    """Raise BvError when counts are not those of the table; without ``strict`` they are said in
    words instead."""
    wanted = {"classes": one.classes, "train": one.train, "test": one.test}
    wanted |= {"dev": one.dev} if one.dev else {}
    found, notes = {"classes": classes} | counts, []
    for what, want in wanted.items():
        low, high = want if isinstance(want, tuple) else (want, want)
        if not low <= found[what] <= high:
            text = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            kind = what if what == "classes" else f"{what} images"
            notes.append(f"{one.name} has {found[what]:,} {kind} where {text} are expected")
    if notes and strict:
        mend = "delete it and fetch it again, or give a limit for a trial"
        raise BvError(f"{notes[0]}: a partial or another archive; {mend}")
    return notes
