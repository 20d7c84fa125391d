"""Readers of the papers' datasets that keep images in files, each in the layout that its archive
has on disk.

A reader takes the reader's folder and gives a :class:`~bvlib.worlds.papers.source.Listing`. Images are in
the order of the papers' code (by class, then by file name, both as plain text), so that its seeded
dev split is found again.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from bvlib.core.errors import MissingData
from bvlib.core.rng import numpy_rng
from bvlib.worlds.papers import names
from bvlib.worlds.papers.source import (
    Listing,
    broken,
    by_class,
    classes_of,
    files,
    find,
    lines_of,
    matched,
)


def _gtsrb(folder: Path) -> Listing:
    top = find(folder, "gtsrb/GTSRB", "GTSRB")
    train, table = find(top, "Training"), find(top.parent, "GT-final_test.csv")
    order = [f"{label:05d}" for label in range(len(names.GTSRB))]
    try:
        with table.open(newline="") as file:
            rows = [
                (row["Filename"], int(row["ClassId"]))
                for row in csv.DictReader(file, delimiter=";", skipinitialspace=True)
            ]
    except (KeyError, TypeError, ValueError, csv.Error):
        raise broken(table, "no table with Filename and ClassId") from None
    test = find(top, "Final_Test/Images")
    return Listing(
        list(names.GTSRB),
        by_class(classes_of(train), train, order),
        files([test / name for name, _ in rows], [label for _, label in rows], test),
    )


def _eurosat(folder: Path) -> Listing:
    """80/10/10 of each class; the cut is the same for every run, so that test images never move
    into train."""
    top = find(folder, "eurosat/2750", "2750", "EuroSAT_RGB")
    classes = classes_of(top)
    if strange := sorted(set(classes) ^ set(names.EUROSAT)):
        raise broken(top, f"class folder {strange[0]!r} is missing or not one of the ten")
    parts: dict[str, dict] = {"train": {}, "dev": {}, "test": {}}
    for name, paths in classes.items():
        order = [paths[i] for i in numpy_rng(0, "eurosat split", name).permutation(len(paths))]
        first, second = len(order) * 8 // 10, len(order) * 8 // 10 + len(order) // 10
        for part, cut in (
            ("train", order[:first]),
            ("dev", order[first:second]),
            ("test", order[second:]),
        ):
            parts[part][name] = sorted(cut)
    return Listing(
        [names.EUROSAT[name] for name in classes],
        **{part: by_class(cut, top) for part, cut in parts.items()},
    )


def _sun397(folder: Path) -> Listing:
    top = find(folder, "SUN397", "sun397")
    lists = find(
        folder,
        *(f"{top.name}/{w}/Training_01.txt" for w in ("Partitions", "Partitions/Partitions")),
        f"{top.name}/Training_01.txt",
        "Partitions/Training_01.txt",
    ).parent
    found = {}
    for part in ("Training_01.txt", "Testing_01.txt"):
        lines = matched(lines_of(find(lists, part)), lists / part, r"/\w/(.+)/([^/]+)")
        # the papers' code joins nested folders with _, and sorts by that
        found[part] = sorted((m[1].replace("/", "_"), m[2], top / m[0][1:]) for m in lines)
    order = sorted({name for name, _, _ in found["Training_01.txt"]})
    place = {name: label for label, name in enumerate(order)}
    splits = [
        files([path for _, _, path in rows], [place.get(name, -1) for name, _, _ in rows], top)
        for rows in found.values()
    ]
    return Listing([name.replace("_", " ") for name in order], *splits)


def _pets(folder: Path) -> Listing:
    top = find(folder, "oxford-iiit-pet", "pets")
    images, lists = find(top, "images"), find(top, "annotations")
    found = {}
    for part in ("trainval.txt", "test.txt"):
        path = find(lists, part)
        lines = [line for line in lines_of(path) if not line.startswith("#")]
        found[part] = sorted(
            (m[1], images / f"{m[1]}_{m[2]}.jpg")
            for m in matched(lines, path, r"(\w+)_(\d+)(\s+\d+){3}")
        )
    order = sorted({name for name, _ in found["trainval.txt"]})
    place = {name: label for label, name in enumerate(order)}
    splits = []
    for rows in found.values():
        splits.append(
            files([path for _, path in rows], [place.get(name, -1) for name, _ in rows], images)
        )
    return Listing([name.replace("_", " ") for name in order], *splits)


def _dtd(folder: Path) -> Listing:
    top = find(folder, "dtd/dtd", "dtd")
    images, lists = find(top, "images"), find(top, "labels")
    found = {
        part: [
            m[0]
            for m in matched(
                lines_of(find(lists, f"{part}1.txt")), lists / f"{part}1.txt", r"[\w-]+/[^/]+"
            )
        ]
        for part in ("train", "val", "test")
    }
    order = sorted({line.split("/")[0] for line in found["train"]})
    place = {name: label for label, name in enumerate(order)}
    splits = [
        files(
            [images / line for line in lines],
            [place.get(line.split("/")[0], -1) for line in lines],
            images,
        )
        for lines in (sorted(found["train"] + found["val"]), sorted(found["test"]))
    ]
    return Listing([name.replace("_", " ") for name in order], *splits)


def _resisc45(folder: Path) -> Listing:
    top = find(folder, "resisc45/NWPU-RESISC45", "NWPU-RESISC45")
    order = sorted(f.name for f in top.iterdir() if f.is_dir() and not f.name.startswith("."))
    splits = []
    for part in ("train", "test"):
        path = find(top.parent, f"resisc45-{part}.txt")
        lines = sorted((m[1], m[0]) for m in matched(lines_of(path), path, r"(\w+)_\d+\.jpg"))
        splits.append(
            files(
                [top / name / file for name, file in lines],
                [order.index(name) if name in order else -1 for name, _ in lines],
                top,
            )
        )
    return Listing([name.replace("_", " ") for name in order], *splits)


def _imagenet100(folder: Path) -> Listing:
    top = find(folder, "imagenet100", "ImageNet100")
    trains = [top / "train"] if (top / "train").is_dir() else sorted(top.glob("train.X*"))
    if not trains:
        raise MissingData(
            f"no train or train.X1 … train.X4 in {top}: unpack the whole archive there"
        )
    classes, test = classes_of(*trains), classes_of(find(top, "val", "val.X"))
    names = [name.replace("_", " ") for name in classes]
    if all(re.fullmatch(r"n\d{8}", name) for name in classes):
        words = find(top, "Labels.json")
        try:
            told = json.loads(words.read_text(encoding="utf-8"))
            names = [told[name].split(",")[0] for name in classes]
        except (ValueError, KeyError, AttributeError, TypeError):
            raise broken(words, "no JSON that names each class folder") from None
    return Listing(names, by_class(classes, top), by_class(test, top, list(classes)))


def _tinyimagenet(folder: Path) -> Listing:
    top = find(folder, "tiny-imagenet-200")
    order = sorted(lines_of(find(top, "wnids.txt")))
    words = dict(line.split("\t", 1) for line in lines_of(find(top, "words.txt")) if "\t" in line)
    if nameless := [name for name in order if name not in words]:
        raise broken(top / "words.txt", f"it does not name class {nameless[0]}")
    table = find(top, "val/val_annotations.txt")
    place = {name: label for label, name in enumerate(order)}
    rows = [
        (m[1], place.get(m[2], -1))
        for m in matched(lines_of(table), table, r"(\S+)\s+(n\d{8})(\s.*)?")
    ]
    train, val = find(top, "train"), find(top, "val/images")
    return Listing(
        [words[name].split(",")[0] for name in order],
        by_class(classes_of(train), train, order),
        files([val / name for name, _ in rows], [label for _, label in rows], val),
    )


READERS = {
    "gtsrb": _gtsrb,
    "eurosat": _eurosat,
    "sun397": _sun397,
    "pets": _pets,
    "dtd": _dtd,
    "resisc45": _resisc45,
    "imagenet100": _imagenet100,
    "tinyimagenet": _tinyimagenet,
}
