"""Named pictures for training a base: sets of 32 px images, and their captions.

A set is a file NAME.npz, in the folder that BVLIB_DATA names or in a folder `base` below or beside
it. It holds ``train_jpeg``, ``train_offsets``, ``train_labels``, ``classnames`` and, if it has
them, ``test_images`` and ``test_labels`` (see bvlib.worlds.images); or ``rgba`` and ``names``: one
picture with transparency for each name.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bvlib.core.errors import MissingData
from bvlib.core.rng import numpy_rng
from bvlib.files.safe import file_sha256
from bvlib.worlds import images
from bvlib.worlds.table import SETS
from bvlib.worlds.words import KIND_WORDS

STARTS = {  # how captions begin; an empty article lets the name speak for itself
    "photo": ("a photo of a {}", "a {}", "{}", "a small photo of a {}"),
    "drawing": ("a drawing of a {}", "a {}", "{}", "a picture of a {}"),
    "character": ("{}", "a photo of {}", "a picture of {}", "a small {}"),
}
VARIANTS = 40  # captions of one name
HELD = 10  # one of so many images of a class is held out, where the set has no test images


@dataclass(frozen=True)
class Pictures:
    """A set in memory: ``images`` uint8 (N, 32, 32, 3), or 4 with transparency; labels (N,) count
    the class names. ``held`` are images and labels that are never trained on."""

    name: str
    kind: str
    images: np.ndarray
    labels: np.ndarray
    classnames: list[str]
    held: tuple[np.ndarray, np.ndarray]
    sha256: str


def read(name: str) -> Pictures:
    """A set of pictures. MissingData if its file is not there, BvError if it is damaged."""
    folder = images.data_folder()
    places = [place / f"{name}.npz" for place in (folder, folder / "base", folder.parent / "base")]
    path = next(filter(Path.is_file, places), None)
    if path is None:
        mend = "let BVLIB_DATA name the folder that holds it, or train a base without it"
        raise MissingData(f"no {name}.npz in {folder}, or in a folder base there or beside: {mend}")
    kind = SETS[name]["kind"]
    with images.opened(path) as archive:
        raw = {key: archive[key] for key in archive.files}
    sha256 = file_sha256(path)
    if "rgba" in raw:
        none = np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, np.int64)
        names = [str(each) for each in raw["names"]]
        return Pictures(name, kind, raw["rgba"], np.arange(len(names)), names, none, sha256)
    classes = [str(each) for each in raw["classnames"]]
    background = 0
    if info := images.DATASETS.get(name):
        classes, background = info.read_names(classes), info.background
    pixels, labels = images.split_of(raw, "train", path, background)
    if "test_images" in raw:
        held = images.split_of(raw, "test", path, background)
    else:
        out = _held(name, labels)
        held, pixels, labels = (pixels[out], labels[out]), pixels[~out], labels[~out]
    return Pictures(name, kind, pixels, labels, classes, held, sha256)


def _held(name: str, labels: np.ndarray) -> np.ndarray:
    """Which images are never trained on: one in HELD of each class."""
    out = np.zeros(len(labels), bool)
    rng = numpy_rng(0, "held out", name)
    for c in np.unique(labels):
        mine = rng.permutation(np.flatnonzero(labels == c))
        out[mine[: len(mine) // HELD]] = True
    return out


def captions_of(name: str, kind: str) -> list[str]:
    """VARIANTS captions of a picture's name, as often as captions take that form: the name, its
    kind in everyday words, or both."""
    starts, words, said = STARTS[kind], KIND_WORDS.get(name), []
    if kind == "character":
        name = named(name)
    for v in range(VARIANTS):
        start, form = starts[v % len(starts)], v // len(starts)
        if words and form < 5:
            word = words[(form + v) % len(words)]
            said.append(start.format(word) if form < 3 else f"{start.format(name)}, a {word}")
        else:
            said.append(start.format(name))
    return said


def named(name: str) -> str:
    """A name with its article."""
    return name if name.startswith("the ") else f"a {name}"
