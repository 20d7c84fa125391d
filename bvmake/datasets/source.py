"""Images on disk, none read yet: what all datasets share in finding, opening and checking them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bvlib.core.errors import BvError, MissingData, told_as
from bvlib.files.safe import write_whole
from bvlib.worlds.images import unfit

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".pgm", ".bmp")
SUFFIXES += (".webp", ".gif", ".tif", ".tiff")
LEFT_BEHIND = ("__MACOSX", "__pycache__", "lost+found", "System Volume Information")  # by tools
ANEW = "the archive is another one, partial or damaged: delete it and fetch it again"


def broken(path: Path, why: str, mend: str = ANEW) -> BvError:
    """The error for a file that is not what it should be. It is returned, not raised."""
    return BvError(f"{path}: {why}; {mend}")


def save_arrays(save: Callable, path: Path, *array: np.ndarray, **arrays: np.ndarray) -> None:
    """Write a file by ``np.save`` or ``np.savez``, whole or not at all.

    The same arrays give the same bytes: numpy gives the entries of an archive a fixed time.
    """

    def write(draft: Path) -> None:
        with draft.open("wb") as file:
            save(file, *array, **arrays)

    write_whole(path, write)


# Images in files


def find(folder: Path, *ways: str) -> Path:
    """The first of the paths ``ways`` that is there in ``folder``. MissingData if none is."""
    for way in ways:
        if (folder / way).exists():
            return folder / way
    mend = "fetch the archive (bv data fetch) or unpack it there"
    raise MissingData(f"no {' or '.join(ways)} in {folder}: {mend}")


def open_image(path: Path, mend: str = ANEW) -> Image.Image:
    """An image file, read to its end, in its own mode. Raises BvError when it cannot be."""
    huge = broken(path, "it has more pixels than is safe to read", "make it smaller first")
    none = broken(path, "no readable image", mend)
    with (
        told_as(huge, Image.DecompressionBombError),
        told_as(none, OSError, SyntaxError, ValueError),
        Image.open(path) as image,
    ):
        image.load()
        return image


def class_folders(*tops: Path) -> dict[str, list[Path]]:
    """{class folder: the image files below it}, sorted, over all the folders ``tops`` together."""
    found: dict[str, list[Path]] = {}
    for folder in (f for top in tops for f in top.iterdir() if f.is_dir() and not hidden(f, top)):
        seen = (f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
        found.setdefault(folder.name, []).extend(sorted(f for f in seen if not hidden(f, folder)))
    return dict(sorted(found.items()))


def hidden(path: Path, top: Path) -> bool:
    """Does the path below ``top`` lead through what tools leave behind: `.ipynb_checkpoints`,
    `@eaDir`, `$RECYCLE.BIN`, `__MACOSX`, ...? A class may be called `#`."""
    parts = path.relative_to(top).parts
    return any((part[0] in ".@$#" and part[1:]) or part in LEFT_BEHIND for part in parts)


# Listings


@dataclass(frozen=True)
class Items:
    """N images not read yet: labels (N,) int64, ``read(i)`` -> PIL image in RGB.

    ``name(i)`` says where image i comes from. ``stamp`` tells a source from one that replaced it:
    sizes and times of its files. ``rows`` (N,) are the places of picked images among all (None:
    these are all).
    """

    labels: np.ndarray
    read: Callable[[int], Image.Image]
    name: Callable[[int], str]
    stamp: str
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def pick(self, rows: np.ndarray) -> Items:
        """The images of these rows, in this order."""
        at = rows if self.rows is None else self.rows[rows]
        read, name = (lambda i, do=do: do(int(rows[i])) for do in (self.read, self.name))
        return Items(self.labels[rows], read, name, self.stamp, at)

    def key(self) -> str:
        """Hash of names, labels and stamp: tells whether a preparation goes on with its source."""
        text = "\n".join(f"{self.name(i)} {label}" for i, label in enumerate(self.labels.tolist()))
        return hashlib.sha256(f"{self.stamp}\n{text}".encode()).hexdigest()


@dataclass(frozen=True)
class Listing:
    """A dataset on disk: class names by label, and its splits; ``dev`` where it has its own."""

    classnames: list[str]
    train: Items
    test: Items
    dev: Items | None = None

    def splits(self) -> dict[str, Items]:
        """{split: its images} of those that the dataset has."""
        parts = {"train": self.train, "dev": self.dev, "test": self.test}
        return {part: items for part, items in parts.items() if items is not None}

    def counts(self) -> dict[str, int]:
        """{split: how many images it has}."""
        return {part: len(items) for part, items in self.splits().items()}


def arrays(images: np.ndarray, labels: Iterable[int], path: Path) -> Items:
    """Images (N, H, W) or (N, H, W, 3) uint8 of the file ``path``, with their labels.

    Raises BvError when they are of other shapes, or there are not as many labels.
    """
    labels = np.array(labels, np.int64).reshape(-1)
    if wrong := unfit(images, labels):
        raise broken(path, wrong)
    state = path.stat()
    return Items(
        labels,
        lambda i: Image.fromarray(np.ascontiguousarray(images[i])).convert("RGB"),
        lambda i: f"{path.name} {i}",
        f"{state.st_size} {state.st_mtime_ns}",
    )


def labelled(found: dict | Iterable[tuple[Any, Path]], order: Iterable, top: Path) -> Items:
    """(class, image file) pairs, or {class: image files}; labels are places in ``order``.

    The images keep their order; ``top`` shortens the names of the files. Raises BvError for a class
    that ``order`` has not, MissingData when some files are not there.
    """
    if isinstance(found, dict):
        found = ((name, path) for name, paths in found.items() for path in paths)
    names, paths = zip(*found, strict=True) if (found := list(found)) else ((), ())
    place, stamp = {name: label for label, name in enumerate(order)}, hashlib.sha256()
    if strange := [at for at, name in enumerate(names) if name not in place]:
        name, path = found[strange[0]]
        raise broken(top, f"class {name!r} of {path.name} is not one of the {len(place)}")
    if missing := [path for path in paths if not path.exists()]:
        what = f"{len(missing)} of {len(paths)} images that should be below {top} are not there"
        mend = "the archive is partial, delete it and fetch it again"
        raise MissingData(f"{what} (first: {missing[0].relative_to(top)}): {mend}")
    for state in map(Path.stat, paths):
        stamp.update(f"{state.st_size} {state.st_mtime_ns} ".encode())
    return Items(
        np.array([place[name] for name in names], np.int64),
        lambda i: open_image(paths[i]).convert("RGB"),
        lambda i: paths[i].relative_to(top).as_posix(),
        stamp.hexdigest(),
    )
