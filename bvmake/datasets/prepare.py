"""Makes the prepared files that :mod:`bvlib.worlds.images` reads, from folders of images or from
torchvision."""

import hashlib
import inspect
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace as changed
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from bvlib.core.errors import BvError, told_as, unknown
from bvlib.files.safe import file_sha256, write_text
from bvlib.worlds import toy
from bvlib.worlds.images import DATASETS, SIDE, data_folder, image_hash, read_words
from bvlib.worlds.table import DatasetInfo, loose
from bvlib.worlds.tasks import HANDWRITTEN
from bvmake.datasets import folders
from bvmake.datasets.folders import Items
from bvmake.datasets.source import save_arrays

WORDS = "words.yaml"
LANCZOS = Image.Resampling.LANCZOS


def prepare(
    name: str,
    source: Path | str | None = None,
    torchvision: str | None = None,
    out: Path | str | None = None,
    say: Callable[[str], None] = print,
    replace: bool = False,
) -> Path:
    """Make `NAME.npz` from a folder of images or from what a torchvision class downloads; return
    its path.

    `source` holds train/CLASS/* and test/CLASS/* (or training, testing, valid, ..., in any case),
    or one level of CLASS/*, of which a fifth of each class, drawn with a seed made of the name,
    becomes the test split. `words.yaml` in it gives class words and prompts
    (:func:`bvlib.worlds.images.read_words`) and is kept beside the set. Photos are turned as their
    camera says; what is left out is said. Images are resized as whole frames with LANCZOS to SIDE
    pixels (aspect not kept); square images all of one smaller size stay as they are. Images in both
    splits are taken out of train. Of a set that DATASETS knows, as many images a class are drawn as
    the reference preparation has; of others all are kept. The same input gives the same bytes.
    `out` is a folder; the data folder by default. A set that is there is made anew with `replace`
    alone.
    """
    if not re.fullmatch(r"\w[\w.-]*", name) or not isinstance(yaml.safe_load(name), str):
        signs = "letters, digits, _ and -, and no bare number or word like `true`"
        raise BvError(f"{name!r} cannot name a dataset: use {signs}")
    taken = {loose(each): each for each in (*toy.TASKS, HANDWRITTEN, *DATASETS)}.get(loose(name))
    if taken and name not in DATASETS:
        mend = f"call that set {taken!r}, or " if taken in DATASETS else ""
        raise BvError(f"the name {name!r} is taken by the task {taken!r}: {mend}use another")
    if (source is None) == (torchvision is None):
        ways = "a folder of images (--from PATH) or a torchvision class (--torchvision CLASS)"
        raise BvError(f"give {ways}")
    path = Path(out or data_folder()) / f"{name}.npz"
    if path.is_file() and not replace:
        raise BvError(f"{path} is there: --replace makes it anew, another name keeps both")
    info, seed = DATASETS.get(name) or DatasetInfo(name, ""), f"bvlib dataset {name}"
    rng = np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()))
    if source is not None:
        classes, splits = folders.read(Path(source), say)
    else:
        classes, splits = _from_torchvision(torchvision, path.parent / "torchvision", name)
    classes, splits = _known_classes(info, classes, splits, say)
    words = _check_words(info, source, classes)
    parts = _stack(splits)
    classes_of = defaultdict(set)
    for pictures, labels in parts:
        for image, label in zip(pictures, labels.tolist(), strict=True):
            classes_of[image_hash(image)].add(label)
    if twice := sum(len(labels) > 1 for labels in classes_of.values()):
        say(f"images that lie under two classes or more, of which nothing can be learnt: {twice}")
    if plain := sum((np.ptp(image, (0, 1)) == 0).all() for these, _ in parts for image in these):
        say(f"images of one colour all over, on which nothing is to be seen: {plain}")
    if not classes:
        classes = [str(label) for label in range(1 + max(y.max() for _, y in parts))]
        _check_words(info, source, classes)
    if len(parts) == 1:
        parts = _fifth(*parts[0], rng)
        say("no test split: a fifth of each class, drawn with a seed made of the name, becomes it")
    seen = set(map(image_hash, parts[1][0]))
    fresh = np.array([image_hash(image) not in seen for image in parts[0][0]], dtype=bool)
    if not fresh.all():
        say(f"{(~fresh).sum()} train images that are also test images left out")
        parts[0] = parts[0][0][fresh], parts[0][1][fresh]
    arrays, limits = {}, (None, None)
    if info.classes:
        limits = round(info.train / info.classes), round(info.test / info.classes)
        few = "at most {} train and {} test images a class, as in the reference"
        say(few.format(*limits))
        if len(classes) != info.classes:
            say(f"{len(classes)} classes, where the reference has {info.classes}: another task")
    for part, (these, their), limit in zip(("train", "test"), parts, limits, strict=True):
        if empty := set(range(len(classes))) - set(their.tolist()):
            lone = classes[min(empty)]
            raise BvError(f"class {lone!r} has no {part} image left: add some or leave it out")
        rows = _draw(their, limit, rng)
        arrays |= {f"{part}_images": these[rows], f"{part}_labels": their[rows]}
    save_arrays(np.savez, path, **arrays, classnames=np.array(classes, dtype=np.str_))
    told = path.with_name(f"{name}.yaml")
    write_text(told, words) if words else told.unlink(missing_ok=True)
    train, test = (len(arrays[f"{part}_labels"]) for part in ("train", "test"))
    each = [np.bincount(arrays[f"{part}_labels"]) for part in ("train", "test")]
    shown = [f"{name} {a} + {b}" for name, a, b in zip(classes[:12], *each)]
    say(f"classes (train + test): {', '.join(shown)}" + ", ..." * (len(classes) > 12))
    counts = f"{train} train and {test} test images, {len(classes)} classes"
    say(f"{path}: {counts}, sha256 {file_sha256(path)[:12]}")
    return path


def _check_words(info: DatasetInfo, source: Path | str | None, classes: list[str]) -> str:
    """The text of `words.yaml` in a folder of images; "" without one. BvError for one that does not
    fit the classes, for two classes of the same words, and for classes that are not those of a set
    that we know."""
    path, text = Path(source or ".") / WORDS, ""
    for other in path.parent.iterdir() if source is not None else ():
        if other.stem.lower() == path.stem and other.is_file() and other.name != WORDS:
            raise BvError(f"{other}: only a file called {WORDS} tells class words: rename it")
    if source is not None and path.is_file():
        if info.classes:
            raise BvError(
                f"{path}: {info.name} has words and prompts: remove it, or name a new set"
            )
        info = changed(info, **read_words(path))
        if strange := info.words.keys() - set(classes):
            raise BvError(f"{path}: there is no class folder {min(strange)!r}")
        text = path.read_text(encoding="utf-8")
    read, seen = info.read_names(classes), {}
    if info.classes and info.words and sorted(read) != sorted(info.words.values()):
        has = f"{info.name} has {info.classes} classes ({', '.join([*info.words][:3])}, ...)"
        here = f"here are {len(classes)} ({', '.join(classes[:3])}, ...)"
        raise BvError(f"{has}, {here}: bring all of them, or give this set another name")
    for name, words in zip(classes, read, strict=True):
        heard = unicodedata.normalize("NFKC", words).casefold()
        if (other := seen.setdefault(heard, name)) != name:
            mend = f"rename one, or tell them apart in {WORDS}"
            raise BvError(f"classes {other!r} and {name!r} are both read as {words!r}: {mend}")
    return text


def _from_torchvision(kind: str, root: Path, name: str) -> tuple[list[str], list[Items]]:
    """As `folders.read`, from the train and test splits of a torchvision class or from its only
    split.

    The class names are [] where torchvision does not tell them.
    """
    from bvlib.core import _torchvision  # noqa: F401  (must come before torchvision itself)
    from torchvision import datasets  # isort: skip

    cls = getattr(datasets, kind, None)
    if not inspect.isclass(cls):
        known = [one for one in datasets.__all__ if one != "VisionDataset"]
        raise unknown("torchvision dataset", kind, known)
    takes = inspect.signature(cls).parameters
    options = {"root": str(root), "download": True}
    options = {key: value for key, value in options.items() if key in takes}
    ways = {"train": [True, False], "split": ["train", "test"]}
    ways = [[{key: value} for value in ends] for key, ends in ways.items() if key in takes]
    mend = f"`bv data prepare {name} --from FOLDER` takes a folder of images instead"
    # torchvision and the network raise many kinds
    with told_as(f"torchvision could not bring {kind}", mend=mend):
        root.mkdir(parents=True, exist_ok=True)
        splits = [cls(**options, **way) for way in (ways or [[{}]])[0]]
    names = getattr(splits[0], "classes", None) or getattr(splits[0], "_characters", None) or []
    # split[i] in the order of i: a torchvision class need not be iterable
    return list(map(str, names)), [map(split.__getitem__, range(len(split))) for split in splits]


def _known_classes(
    info: DatasetInfo, names: list[str], splits: list[Items], say: Callable
) -> tuple:
    """Keep the classes that a known set has (dtd10 from all of DTD); other sets pass through."""
    known = {loose(name) for name in info.words}
    keep = [i for i, name in enumerate(names) if loose(name) in known]
    if not known or len(keep) != len(known) or len(keep) == len(names):
        return names, splits
    say(f"{len(keep)} of {len(names)} classes kept, those of {info.name}")
    new = {old: label for label, old in enumerate(keep)}
    return [names[i] for i in keep], [
        ((i, new[y]) for i, y in split if y in new) for split in splits
    ]


def _stack(splits: Iterable[Items]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Splits of (PIL image, label) pairs -> (images uint8 N x H x W (x 3), labels int64 N) of each.

    All images of all splits get one shape: grey if all are grey, SIDE pixels unless all agree on
    fewer.
    """
    drawn = [[_drawn(image, label) for image, label in split] for split in splits]
    grey = all(image.mode == "L" for split in drawn for image, _ in split)
    sizes = {image.size for split in drawn for image, _ in split}
    shape = sizes.pop() if len(sizes) == 1 else (SIDE, SIDE)

    def array(image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert("L" if grey else "RGB").resize(shape, LANCZOS))

    return [
        (np.stack([array(image) for image, _ in split]), np.array([y for _, y in split], np.int64))
        for split in drawn
    ]


def _drawn(image: Image.Image, label: int) -> tuple[Image.Image, int]:
    """An image in grey or RGB, SIDE pixels wide and high unless it is square and smaller."""
    if not isinstance(image, Image.Image) or not isinstance(label, int | np.integer):
        what = "(image, class number) pairs: not a classification set"
        raise BvError(f"the source does not give {what}")
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    fits = image.width == image.height <= SIDE
    return image if fits else image.resize((SIDE, SIDE), LANCZOS), int(label)


def _fifth(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> list[tuple]:
    """One split -> train and test: a fifth of each class, at least one image, is test."""
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        test[rows[: max(1, round(len(rows) / 5))]] = True
    return [(images[~test], labels[~test]), (images[test], labels[test])]


def _draw(labels: np.ndarray, limit: int | None, rng: np.random.Generator) -> np.ndarray:
    """Row numbers in shuffled order, at most `limit` of each class."""
    rows = rng.permutation(len(labels))
    if limit is None:
        return rows
    first = [np.flatnonzero(labels[rows] == label)[:limit] for label in np.unique(labels)]
    return rows[np.sort(np.concatenate(first))]
