"""Readers of the papers' datasets, each in the layout that its archive has on disk.

A reader takes the reader's folder and gives a :class:`~bvmake.datasets.source.Listing`. Images
in files are in the order of the papers' code (by class, then by file name, both as plain text), so
that its seeded dev split is found again.
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bvlib.core.errors import told_as
from bvlib.core.rng import numpy_rng
from bvlib.worlds.papers.table import row
from bvmake.datasets.formats import idx, lines_of, mat, matched, plain_pickle
from bvmake.datasets.source import Items, Listing, arrays, broken, class_folders, find, labelled

DIGITS = list("0123456789")


def _words(names: Iterator[str] | list[str]) -> list[str]:
    """Class folders as class names: _ as space."""
    return [name.replace("_", " ") for name in names]


# Images in arrays: pickles, idx, .mat and raw bytes


def _cifar100(folder: Path) -> Listing:
    top = find(folder, "cifar-100-python")
    none = "no CIFAR batch (data uint8 N x 3072, fine_labels)"

    def split(path: Path) -> Items:
        batch = plain_pickle(path)
        with told_as(broken(path, none), KeyError, AttributeError, ValueError, TypeError):
            images = batch["data"].reshape(len(batch["data"]), 3, 32, 32).transpose(0, 2, 3, 1)
            return arrays(images, batch["fine_labels"], path)

    names = plain_pickle(find(top, "meta")).get("fine_label_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise broken(top / "meta", "it lists no fine_label_names")
    return Listing(names, split(find(top, "train")), split(find(top, "test")))


def _mnist(folder: Path) -> Listing:
    top = find(folder, "MNIST/raw", "mnist/raw")

    def split(part: str) -> Items:
        names = (f"{part}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
        images, labels = (find(top, name, f"{name}.gz") for name in names)
        return arrays(idx(images, 3), idx(labels, 1), images)

    return Listing(DIGITS, split("train"), split("t10k"))


def _svhn(folder: Path) -> Listing:
    def split(part: str) -> Items:
        path = find(folder, f"svhn/{part}_32x32.mat", f"{part}_32x32.mat")
        images, labels = mat(path, "X", "y")
        if images.shape != (32, 32, 3, len(labels)):
            raise broken(path, f"X is not 32 x 32 x 3 x {len(labels)} bytes")
        labels = labels.astype(np.int64) % 10  # the file calls zero 10
        return arrays(images.transpose(3, 0, 1, 2), labels, path)

    return Listing(DIGITS, split("train"), split("test"))


def _stl10(folder: Path) -> Listing:
    top = find(folder, "stl10_binary", "stl10/stl10_binary")

    def split(part: str) -> Items:
        path = find(top, f"{part}_X.bin")
        with told_as(broken(path, "no whole number of 96 x 96 images"), ValueError):
            images = np.memmap(path, np.uint8, "r").reshape(-1, 3, 96, 96)  # columns come first
        labels = np.fromfile(find(top, f"{part}_y.bin"), np.uint8).astype(np.int64) - 1
        return arrays(images.transpose(0, 3, 2, 1), labels, path)

    return Listing(lines_of(find(top, "class_names.txt")), split("train"), split("test"))


# Images in files that .mat, .csv or text lists name


def _cars(folder: Path) -> Listing:
    top = find(folder, "stanford_cars", "cars")
    [names] = mat(find(top, "devkit/cars_meta.mat"), "class_names")

    def split(part: str, *ways: str) -> Items:
        images = find(top, f"cars_{part}/cars_{part}", f"cars_{part}")  # Kaggle nests the folder
        notes = mat(find(top, *ways), "annotations.class", "annotations.fname")
        pairs = ((int(label), images / str(name)) for label, name in zip(*notes, strict=True))
        return labelled(pairs, range(1, len(names) + 1), images)

    train, test = "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"
    splits = split("train", train), split("test", test, f"devkit/{test}")
    return Listing(_words(map(str, names)), *splits)


def _flowers(folder: Path) -> Listing:
    top = find(folder, "flowers-102", "flowers")
    images = find(top, "jpg")
    [labels] = mat(find(top, "imagelabels.mat"), "labels")
    label = dict(enumerate(labels.tolist(), 1))  # by number of the image

    def split(numbers: np.ndarray) -> Items:
        pairs = ((label.get(n), images / f"image_{n:05d}.jpg") for n in numbers.tolist())
        return labelled(pairs, range(1, 103), images)

    splits = map(split, mat(find(top, "setid.mat"), "trnid", "tstid"))
    return Listing(list(row("flowers").classnames), *splits)


def _gtsrb(folder: Path) -> Listing:
    top = find(folder, "gtsrb/GTSRB", "GTSRB")
    train, test = find(top, "Training"), top / "Final_Test/Images"
    table, names = find(top.parent, "GT-final_test.csv"), list(row("gtsrb").classnames)
    none = broken(table, "no table with Filename and ClassId")
    with told_as(none, KeyError, TypeError, ValueError, csv.Error), table.open(newline="") as file:
        notes = csv.DictReader(file, delimiter=";", skipinitialspace=True)
        tests = [(f"{int(note['ClassId']):05d}", test / note["Filename"]) for note in notes]
    order = [f"{label:05d}" for label in range(len(names))]
    trains = labelled(class_folders(train), order, train)
    return Listing(names, trains, labelled(tests, order, test))


def _by_lists(top: Path, train: list[Path], test: list[Path], *forms: str) -> Listing:
    """The images below ``top`` that text lists name, by class and file; classes sorted.

    The three ``forms`` are that of a line, a regular expression, and the class and the image file
    made of its groups. The papers' code joins nested class folders with _, and sorts by that.
    """
    line, kind, path = forms

    def pairs(lists: list[Path]) -> list[tuple[str, Path]]:
        lines = [match for one in lists for match in matched(one, line)]
        return sorted((m.expand(kind).replace("/", "_"), top / m.expand(path)) for m in lines)

    splits = pairs(train), pairs(test)
    order = sorted({name for name, _ in splits[0]})
    return Listing(_words(order), *(labelled(found, order, top) for found in splits))


def _sun397(folder: Path) -> Listing:
    top, ways = find(folder, "SUN397", "sun397"), ("Partitions/", "Partitions/Partitions/", "")
    ways = [f"{top.name}/{way}Training_01.txt" for way in ways]
    train = find(folder, *ways, "Partitions/Training_01.txt")
    test = find(train.parent, "Testing_01.txt")
    return _by_lists(top, [train], [test], r"/(\w/(.+)/[^/]+)", r"\2", r"\1")


def _pets(folder: Path) -> Listing:
    top = find(folder, "oxford-iiit-pet", "pets")
    lists = ([find(top, f"annotations/{part}.txt")] for part in ("trainval", "test"))
    return _by_lists(find(top, "images"), *lists, r"((\w+)_\d+)(\s+\d+){3}", r"\2", r"\1.jpg")


def _dtd(folder: Path) -> Listing:
    top = find(folder, "dtd/dtd", "dtd")
    train, val, test = (find(top, f"labels/{part}1.txt") for part in ("train", "val", "test"))
    return _by_lists(find(top, "images"), [train, val], [test], r"([\w-]+)/[^/]+", r"\1", r"\g<0>")


def _resisc45(folder: Path) -> Listing:
    top = find(folder, "resisc45/NWPU-RESISC45", "NWPU-RESISC45")
    lists = ([find(top.parent, f"resisc45-{part}.txt")] for part in ("train", "test"))
    return _by_lists(top, *lists, r"(\w+)_\d+\.jpg", r"\1", r"\1/\g<0>")


# Images in a folder a class


def _eurosat(folder: Path) -> Listing:
    """80/10/10 of each class, the same cut for every run: no test image ever moves into train."""
    top, named = find(folder, "eurosat/2750", "2750", "EuroSAT_RGB"), row("eurosat").classnames
    classes = class_folders(top)
    if strange := sorted(set(classes) ^ set(named)):
        raise broken(top, f"class folder {strange[0]!r} is missing or not one of the ten")
    parts: dict[str, dict] = {"train": {}, "dev": {}, "test": {}}
    for name, paths in classes.items():
        n, rng = len(paths), numpy_rng(0, "eurosat split", name)
        cut = np.split(rng.permutation(n), [n * 8 // 10, n * 8 // 10 + n // 10])
        for found, rows in zip(parts.values(), cut, strict=True):
            found[name] = [paths[i] for i in sorted(rows)]
    splits = {part: labelled(found, classes, top) for part, found in parts.items()}
    return Listing([named[name] for name in classes], **splits)


def _imagenet100(folder: Path) -> Listing:
    top = find(folder, "imagenet100", "ImageNet100")
    first = find(top, "train", "train.X1")  # Kaggle's archive has four folders of train
    trains = [first] if first.name == "train" else sorted(top.glob("train.X*"))
    classes, test = class_folders(*trains), class_folders(find(top, "val", "val.X"))
    names = _words(classes)
    if all(re.fullmatch(r"n\d{8}", name) for name in classes):
        told = find(top, "Labels.json")
        none = broken(told, "no JSON that names each class folder")
        with told_as(none, ValueError, KeyError, AttributeError, TypeError):
            by_id = json.loads(told.read_text(encoding="utf-8"))
            names = [by_id[name].split(",")[0] for name in classes]
    return Listing(names, *(labelled(found, classes, top) for found in (classes, test)))


def _tinyimagenet(folder: Path) -> Listing:
    top = find(folder, "tiny-imagenet-200")
    order = sorted(lines_of(find(top, "wnids.txt")))
    told = dict(line.split("\t", 1) for line in lines_of(find(top, "words.txt")) if "\t" in line)
    if nameless := [name for name in order if name not in told]:
        raise broken(top / "words.txt", f"it does not name class {nameless[0]}")
    train, val = find(top, "train"), find(top, "val/images")
    lines = matched(find(top, "val/val_annotations.txt"), r"(\S+)\s+(n\d{8})(\s.*)?")
    return Listing(
        [told[name].split(",")[0] for name in order],
        labelled(class_folders(train), order, train),
        labelled([(m[2], val / m[1]) for m in lines], order, val),
    )


READERS = {
    reader.__name__[1:]: reader
    for reader in (_cifar100, _mnist, _svhn, _stl10, _cars, _flowers, _gtsrb, _sun397, _pets, _dtd)
    + (_resisc45, _eurosat, _imagenet100, _tinyimagenet)
}
