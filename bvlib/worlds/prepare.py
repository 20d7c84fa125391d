"""Makes the prepared files that :mod:`bvlib.worlds.images` reads, from folders of images or from
torchvision."""

import hashlib
import inspect
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bvlib.core.errors import BvError, MissingData, unknown
from bvlib.files.safe import file_sha256, write_text
from bvlib.worlds import toy
from bvlib.worlds.images import DATASETS, SIDE, data_folder, read_words
from bvlib.worlds.source import class_folders, hidden, image_hash, open_image, save_arrays, told_as
from bvlib.worlds.table import DatasetInfo, loose
from bvlib.worlds.tasks import HANDWRITTEN

Items = Iterable[tuple[Image.Image, int]]
WORDS = "words.yaml"
TRAIN = ("train", "training", "final_training")  # names of split folders, in any case
TEST = ("test", "testing", "final_test", "val", "valid", "validation")  # the first that is there
LANCZOS = Image.Resampling.LANCZOS


def prepare(
    name: str,
    source: Path | str | None = None,
    torchvision: str | None = None,
    out: Path | str | None = None,
    say: Callable[[str], None] = print,
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
    `out` is a folder; the data folder by default.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise BvError(f"{name!r} cannot name a dataset: use letters, digits, _ and -")
    if name in (*toy.TASKS, HANDWRITTEN):
        raise BvError(f"the name {name!r} is taken by a task of the toy world: use another")
    if (source is None) == (torchvision is None):
        ways = "a folder of images (--from PATH) or a torchvision class (--torchvision CLASS)"
        raise BvError(f"give {ways}")
    path = Path(out or data_folder()) / f"{name}.npz"
    info, seed = DATASETS.get(name) or DatasetInfo(name, ""), f"bvlib dataset {name}"
    rng = np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()))
    if source is not None:
        classes, splits = _from_folder(Path(source), say)
    else:
        classes, splits = _from_torchvision(torchvision, path.parent / "torchvision", name)
    classes, splits = _known_classes(info, classes, splits, say)
    words = _words(source, classes)
    parts = _stack(splits)
    classes_of = defaultdict(set)
    for pictures, labels in parts:
        for image, label in zip(pictures, labels.tolist(), strict=True):
            classes_of[image_hash(image)].add(label)
    if twice := sum(len(labels) > 1 for labels in classes_of.values()):
        say(f"{twice} images lie under two classes or more: what they show cannot be learnt")
    classes = classes or [str(label) for label in range(1 + max(y.max() for _, y in parts))]
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
    for part, (these, their), limit in zip(("train", "test"), parts, limits, strict=True):
        if empty := set(range(len(classes))) - set(their.tolist()):
            lone = classes[min(empty)]
            raise BvError(f"class {lone!r} has no {part} image left: add some or leave it out")
        rows = _draw(their, limit, rng)
        arrays |= {f"{part}_images": these[rows], f"{part}_labels": their[rows]}
    save_arrays(np.savez, path, **arrays, classnames=np.array(classes, dtype=np.str_))
    if words:
        write_text(path.with_suffix(".yaml"), words)
    train, test = (len(arrays[f"{part}_labels"]) for part in ("train", "test"))
    counts = f"{train} train and {test} test images, {len(classes)} classes"
    say(f"{path}: {counts}, sha256 {file_sha256(path)[:12]}")
    return path


def _words(source: Path | str | None, classes: Iterable[str]) -> str:
    """The text of `words.yaml` in a folder of images; "" without one. BvError for one that does not
    fit the classes."""
    path = Path(source or ".") / WORDS
    if source is None or not path.is_file():
        return ""
    if strange := read_words(path)["words"].keys() - set(classes):
        raise BvError(f"{path}: there is no class folder {min(strange)!r}")
    return path.read_text(encoding="utf-8")


def _from_folder(source: Path, say: Callable[[str], None]) -> tuple[list[str], list[Items]]:
    """Class names and one or two splits (train, test): (image, label) pairs in the order of file
    names; names that are numbers in the order of numbers."""
    if not source.is_dir():
        way = "give one that holds train/CLASS/ and test/CLASS/, or CLASS/"
        raise MissingData(f"no folder {source}: {way}")
    tops = _splits(source, say) or [source]
    found = [class_folders(top) for top in tops]
    for top, part in zip(tops, found, strict=True):
        _check_folders(top, part, say)
    if lone := sorted(set(found[0]) ^ set(found[-1])):
        raise BvError(f"{source}: class {lone[0]!r} is not in both train and test")
    if len(found[0]) < 2:
        way = "give two or more folders CLASS/ with images, or train/CLASS/ + test/CLASS/"
        raise BvError(f"{source}: {way}")
    names = sorted(found[0], key=lambda n: (0, int(n), n) if n.isdecimal() else (1, 0, n))
    files = [[(f, i) for i, name in enumerate(names) for f in part[name]] for part in found]
    return names, [((_picture(f), i) for f, i in part) for part in files]


def _splits(source: Path, say: Callable[[str], None]) -> list[Path]:
    """The folders of train and test images below ``source``; none where there are not both."""
    there = {path.name.lower(): path for path in sorted(source.iterdir()) if path.is_dir()}
    train = [there[name] for name in TRAIN if name in there]
    test = [there[name] for name in TEST if name in there]
    if not train or not test:
        return []
    for path in [*train[1:], *test[1:]]:
        say(f"{path.name}/ is left out: {train[0].name}/ and {test[0].name}/ are the two splits")
    return [train[0], test[0]]


def _check_folders(top: Path, found: dict[str, list[Path]], say: Callable[[str], None]) -> None:
    """Say which files are left out. BvError for a class without images, and where the folders are
    no classes but hold such."""
    skipped: Counter[str] = Counter()
    for name, files in found.items():
        below = (f for f in (top / name).rglob("*") if f.is_file() and not hidden(f, top))
        skipped.update(f.suffix.lower() or f.name for f in below if f not in set(files))
        if not files:
            raise BvError(f"class {name!r} in {top} has no image: add some, or remove the folder")
        if deeper := [f for f in files if f.parent != top / name]:
            what = f"{name!r} has folders in it ({deeper[0].parent.name!r}), so it is no class"
            raise BvError(f"{top}: {what}: give the folder whose folders are the classes")
    if skipped:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(skipped.items()))
        say(f"files in {top} that are no images, left out: {kinds}")


def _picture(path: Path) -> Image.Image:
    """An image file, turned as its camera says. BvError for more than 8 bits a channel, whose
    range is not told."""
    image = open_image(path, "mend or remove it")
    if image.mode[0] in "IF":
        mend = "convert it to 8 bits a channel first, by the range that it has"
        raise BvError(f"{path}: it is of mode {image.mode}, more than 8 bits a pixel: {mend}")
    return ImageOps.exif_transpose(image)


def _from_torchvision(kind: str, root: Path, name: str) -> tuple[list[str], list[Items]]:
    """As `_from_folder`, from the train and test splits of a torchvision class or from its only
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
