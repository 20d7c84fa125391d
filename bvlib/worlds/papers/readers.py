"""Readers of the papers' datasets, each in the layout that its archive has on disk.

A reader takes the reader's folder and gives a :class:`~bvlib.worlds.papers.source.Listing`. Images
in files are in the order of the papers' code (by class, then by file name, both as plain text), so
that its seeded dev split is found again.
"""

from __future__ import annotations

import csv
import json
import re
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from bvlib.core.errors import MissingData
from bvlib.core.rng import numpy_rng
from bvlib.worlds.papers.formats import idx, lines_of, mat, matched, plain_pickle
from bvlib.worlds.papers.source import (
    Items,
    Listing,
    arrays,
    broken,
    class_folders,
    find,
    labelled,
    words,
)
from bvlib.worlds.papers.table import row

# Images in arrays: pickles, idx, .mat and raw bytes


def _cifar100(folder: Path) -> Listing:
    top = find(folder, "cifar-100-python")

    def split(path: Path) -> Items:
        batch = plain_pickle(path)
        data, labels = batch.get("data"), batch.get("fine_labels")
        if (
            getattr(data, "dtype", None) != np.uint8
            or data.shape[1:] != (3072,)
            or type(labels) is not list
        ):
            raise broken(path, "no CIFAR batch (data uint8 N x 3072, fine_labels)")
        return arrays(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels, path)

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

    return Listing(list("0123456789"), split("train"), split("t10k"))


def _svhn(folder: Path) -> Listing:
    def split(part: str) -> Items:
        path = find(folder, f"svhn/{part}_32x32.mat", f"{part}_32x32.mat")
        images, labels = mat(path, "X", "y")
        if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)):
            raise broken(path, f"X is not 32 x 32 x 3 x {len(labels)} bytes")
        labels = labels.astype(np.int64) % 10  # the file calls zero 10
        return arrays(images.transpose(3, 0, 1, 2), labels, path)

    return Listing(list("0123456789"), split("train"), split("test"))


def _stl10(folder: Path) -> Listing:
    top = find(folder, "stl10_binary", "stl10/stl10_binary")

    def split(part: str) -> Items:
        size = (path := find(top, f"{part}_X.bin")).stat().st_size
        if not size or size % (3 * 96 * 96):
            raise broken(path, "no whole number of 96 x 96 images")
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
    return Listing(words(map(str, names)), *splits)


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
    train, test, table = find(top, "Training"), top / "Final_Test/Images", "GT-final_test.csv"
    table, names = find(top.parent, table), list(row("gtsrb").classnames)
    try:
        with table.open(newline="") as file:
            notes = csv.DictReader(file, delimiter=";", skipinitialspace=True)
            tests = [(f"{int(note['ClassId']):05d}", test / note["Filename"]) for note in notes]
    except (KeyError, TypeError, ValueError, csv.Error):
        raise broken(table, "no table with Filename and ClassId") from None
    order = [f"{label:05d}" for label in range(len(names))]
    trains = labelled(class_folders(train), order, train)
    return Listing(names, trains, labelled(tests, order, test))


def _sun397(folder: Path) -> Listing:
    top = find(folder, "SUN397", "sun397")
    ways = ("Partitions/", "Partitions/Partitions/", "")
    ways = [f"{top.name}/{way}Training_01.txt" for way in ways]
    lists = find(folder, *ways, "Partitions/Training_01.txt").parent

    def pairs(part: str) -> list[tuple[str, Path]]:
        lines = matched(find(lists, f"{part}_01.txt"), r"/\w/(.+)/([^/]+)")
        # the papers' code joins nested folders with _, and sorts by that
        found = sorted((m[1].replace("/", "_"), m[2], top / m[0][1:]) for m in lines)
        return [(name, path) for name, _, path in found]

    return _listed(top, pairs("Training"), pairs("Testing"))


def _listed(top: Path, train: list[tuple[str, Path]], test: list[tuple[str, Path]]) -> Listing:
    """(class, image file) pairs as a listing, of the classes that train has, sorted."""
    order = sorted({name for name, _ in train})
    return Listing(words(order), *(labelled(pairs, order, top) for pairs in (train, test)))


def _pets(folder: Path) -> Listing:
    top = find(folder, "oxford-iiit-pet", "pets")
    images, lists = find(top, "images"), find(top, "annotations")

    def pairs(part: str) -> list[tuple[str, Path]]:
        lines = matched(find(lists, f"{part}.txt"), r"((\w+)_\d+)(\s+\d+){3}")
        return sorted((m[2], images / f"{m[1]}.jpg") for m in lines)

    return _listed(images, pairs("trainval"), pairs("test"))


def _dtd(folder: Path) -> Listing:
    top = find(folder, "dtd/dtd", "dtd")
    images, lists = find(top, "images"), find(top, "labels")

    def pairs(*parts: str) -> list[tuple[str, Path]]:
        lines = [matched(find(lists, f"{part}1.txt"), r"([\w-]+)/[^/]+") for part in parts]
        return [(m[1], images / m[0]) for m in sorted(chain(*lines), key=lambda m: m[0])]

    return _listed(images, pairs("train", "val"), pairs("test"))


def _resisc45(folder: Path) -> Listing:
    top = find(folder, "resisc45/NWPU-RESISC45", "NWPU-RESISC45")

    def pairs(part: str) -> list[tuple[str, Path]]:
        lines = matched(find(top.parent, f"resisc45-{part}.txt"), r"(\w+)_\d+\.jpg")
        return sorted((m[1], top / m[1] / m[0]) for m in lines)

    return _listed(top, pairs("train"), pairs("test"))


# Images in a folder a class


def _eurosat(folder: Path) -> Listing:
    """80/10/10 of each class, the same cut for every run: no test image ever moves into train."""
    top, named = find(folder, "eurosat/2750", "2750", "EuroSAT_RGB"), row("eurosat").classnames
    classes = class_folders(top)
    if strange := sorted(set(classes) ^ set(named)):
        raise broken(top, f"class folder {strange[0]!r} is missing or not one of the ten")
    parts: dict[str, dict] = {"train": {}, "dev": {}, "test": {}}
    for name, paths in classes.items():
        order = [paths[i] for i in numpy_rng(0, "eurosat split", name).permutation(len(paths))]
        ends = [0, len(order) * 8 // 10, len(order) * 8 // 10 + len(order) // 10, len(order)]
        for part, (start, end) in zip(parts, pairwise(ends), strict=True):
            parts[part][name] = sorted(order[start:end])
    splits = {part: labelled(found, classes, top) for part, found in parts.items()}
    return Listing([named[name] for name in classes], **splits)


def _imagenet100(folder: Path) -> Listing:
    top = find(folder, "imagenet100", "ImageNet100")
    trains = [top / "train"] if (top / "train").is_dir() else sorted(top.glob("train.X*"))
    if not trains:
        ways = "train or train.X1 … train.X4"
        raise MissingData(f"no {ways} in {top}: unpack the whole archive there")
    classes, test = class_folders(*trains), class_folders(find(top, "val", "val.X"))
    names = words(classes)
    if all(re.fullmatch(r"n\d{8}", name) for name in classes):
        told = find(top, "Labels.json")
        try:
            by_id = json.loads(told.read_text(encoding="utf-8"))
            names = [by_id[name].split(",")[0] for name in classes]
        except (ValueError, KeyError, AttributeError, TypeError):
            raise broken(told, "no JSON that names each class folder") from None
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
