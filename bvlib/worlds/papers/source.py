"""Images of a dataset on disk, none read yet: what all readers of the papers' datasets share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bvlib.core.errors import BvError, MissingData

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".webp"}


@dataclass(frozen=True)
class Items:
    """N images not read yet: labels (N,) int64, ``read(i)`` -> PIL image in RGB, ``name(i)`` ->
    where it comes from.

    ``stamp`` tells a source from one that replaced it: sizes and times of its files. ``rows`` (N,)
    are the places of picked images among all (None: these are all).
    """

    labels: np.ndarray
    read: Callable[[int], Image.Image]
    name: Callable[[int], str]
    stamp: str
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def pick(self, rows: np.ndarray) -> "Items":
        """The images of these rows, in this order."""
        places = rows if self.rows is None else self.rows[rows]
        return Items(
            self.labels[rows],
            lambda i: self.read(int(rows[i])),
            lambda i: self.name(int(rows[i])),
            self.stamp,
            places,
        )

    def key(self) -> str:
        """Hash of names, labels and stamp: tells whether an interrupted preparation read the same
        source."""
        text = "\n".join(f"{self.name(i)} {label}" for i, label in enumerate(self.labels.tolist()))
        return hashlib.sha256(f"{self.stamp}\n{text}".encode()).hexdigest()


@dataclass(frozen=True)
class Listing:
    """A dataset on disk: class names by label, and its splits; ``dev`` where it has one of its
    own."""

    classnames: list[str]
    train: Items
    test: Items
    dev: Items | None = None


def broken(path: Path, why: str) -> BvError:
    """The error for a file that is not what it should be. It is returned, not raised."""
    return BvError(
        f"{path}: {why}; the archive is another one, partial or damaged: delete it and fetch it "
        "again"
    )


def find(folder: Path, *ways: str) -> Path:
    """The first of the paths ``ways`` that is there below ``folder``. Raises MissingData when none
    is."""
    for way in ways:
        if (folder / way).exists():
            return folder / way
    raise MissingData(
        f"no {' or '.join(ways)} in {folder}: fetch the archive (bv data fetch) or unpack it there"
    )


# Images in files


def open_image(path: Path) -> Image.Image:
    """An image file in RGB. Raises BvError when it cannot be read to its end."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise broken(path, "no readable image") from None


def files(paths: Sequence[Path], labels: Sequence[int], top: Path) -> Items:
    """Image files with their labels; ``top`` shortens their names. Raises MissingData when some
    are not there."""
    stamp, missing = hashlib.sha256(), []
    for path in paths:
        try:
            state = path.stat()
            stamp.update(f"{state.st_size} {state.st_mtime_ns} ".encode())
        except OSError:
            missing.append(path)
    if missing:
        raise MissingData(
            f"{len(missing)} of {len(paths)} images that should be below {top} are not there "
            "(first: "
            f"{missing[0].relative_to(top)}): the archive is partial, delete it and fetch it again"
        )
    return Items(
        np.array(labels, np.int64),
        lambda i: open_image(paths[i]),
        lambda i: paths[i].relative_to(top).as_posix(),
        stamp.hexdigest(),
    )


def images_of(folder: Path) -> list[Path]:
    """All image files below a folder, sorted."""
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )


def classes_of(*tops: Path) -> dict[str, list[Path]]:
    """{class folder: its image files}, sorted, over all the folders ``tops`` together."""
    found: dict[str, list[Path]] = {}
    for folder in (
        f for top in tops for f in top.iterdir() if f.is_dir() and not f.name.startswith(".")
    ):
        found.setdefault(folder.name, []).extend(images_of(folder))
    return dict(sorted(found.items()))


def by_class(
    classes: dict[str, list[Path]], top: Path, order: Sequence[str] | None = None
) -> Items:
    """Images class by class; labels are places in ``order`` (the classes themselves by default)."""
    place = {name: label for label, name in enumerate(order or classes)}
    if foreign := [name for name in classes if name not in place]:
        raise broken(top, f"class folder {foreign[0]!r} is not one of the {len(place)} of train")
    pairs = [(path, place[name]) for name, paths in classes.items() for path in paths]
    return files([path for path, _ in pairs], [label for _, label in pairs], top)


def lines_of(path: Path) -> list[str]:
    """The lines of a text file without empty ones. Raises BvError when it is no text."""
    try:
        return [
            line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    except (OSError, UnicodeDecodeError):
        raise broken(path, "no list in plain text") from None


def matched(lines: Sequence[str], path: Path, form: str) -> list[re.Match]:
    """Each line matched whole against the pattern ``form``. Raises BvError for the first that does
    not fit."""
    found = [re.fullmatch(form, line) for line in lines]
    if None in found:
        raise broken(path, f"line {found.index(None) + 1} is not of the form this list has")
    return found
