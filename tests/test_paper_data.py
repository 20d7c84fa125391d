"""The papers' datasets, each read from a small archive in its own layout on disk; fetching, from a
server of our own."""

import contextlib
import csv
import doctest
import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from helpers import one_line
from PIL import Image

from bvlib.core.errors import MissingData
from bvlib.worlds.papers import check, data, table
from bvmake.datasets import fetch, papers, write
from bvmake.datasets.write import clip_square

SIZE = 24
NAMES = list(table.ROWS)


# Archives in the layouts of the real ones: all classes, a few noise images each


def noise(*seed, shape=(12, 14, 3)):
    return np.random.default_rng(list(hashlib.sha256(repr(seed).encode()).digest())).integers(
        0, 256, shape, np.uint8
    )


def picture(path, *seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    named = str(path).rpartition("/raw/")[2][-60:]  # not by the temporary folder it lies in
    Image.fromarray(noise(*(seed or [named]))).save(path)


def text(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


class Python2(pickle._Pickler):
    """Writes text and bytes as Python 2 did, which made CIFAR's files."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def _string(self, value):
        data = value.encode() if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = _string


def pickled(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Python2(out := io.BytesIO(), 2).dump(value)
    path.write_bytes(out.getvalue().replace(b"cnumpy._core.", b"cnumpy.core."))


def cifar100(top, each=2):
    top = top / "cifar-100-python"
    for part, n in (("train", 100 * each), ("test", 100)):
        pickled(
            top / part,
            {
                "batch_label": part,
                "fine_labels": [i % 100 for i in range(n)],
                "data": noise(part, shape=(n, 3072)),
            },
        )
    pickled(top / "meta", {"fine_label_names": [f"kind_{i}" for i in range(100)]})
    return {"train": 100 * each, "test": 100}


def gtsrb(top):
    top = top / "gtsrb"
    for i in range(43):
        for k in range(2):
            picture(top / f"GTSRB/Training/{i:05d}/{k:05d}_00000.ppm")
        text(top / f"GTSRB/Training/{i:05d}/GT-{i:05d}.csv", ["Filename;ClassId"])
        picture(top / f"GTSRB/Final_Test/Images/{i:05d}.ppm")
    with (top / "GT-final_test.csv").open("w", newline="") as file:
        table = csv.writer(file, delimiter=";")
        table.writerows(
            [
                ["Filename", "Width", "Height", "ClassId"],
                *([f"{i:05d}.ppm", 14, 12, 42 - i] for i in range(43)),
            ]
        )
    return {"train": 86, "test": 43}


def eurosat(top):
    for name in table.ROWS["eurosat"].classnames:
        for k in range(10):
            picture(top / f"eurosat/2750/{name}/{name}_{k + 1}.jpg")
    return {"train": 80, "dev": 10, "test": 10}


def savemat(path, **arrays):
    from scipy.io import savemat as save

    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, arrays)


def cars(top):
    top = top / "stanford_cars"
    for part, n, path in (
        ("train", 2, "devkit/cars_train_annos.mat"),
        ("test", 1, "cars_test_annos_withlabels.mat"),
    ):
        notes = np.zeros((1, 196 * n), [("bbox_x1", "O"), ("class", "O"), ("fname", "O")])
        for i in range(196 * n):
            notes[0, i] = 1, i % 196 + 1, f"{i + 1:05d}.jpg"
            picture(top / f"cars_{part}/{i + 1:05d}.jpg")
        savemat(top / path, annotations=notes)
    names = np.array([f"Make_{i} Sedan 2012" for i in range(196)], object)[None]
    savemat(top / "devkit/cars_meta.mat", class_names=names)
    return {"train": 392, "test": 196}


def sun397(top):
    kinds = [
        "/a/abbey",
        "/j/jail/indoor",
        "/j/jail_cell",
        *(f"/k/kind_{i:03d}" for i in range(394)),
    ]
    for part, numbers in (("Training", "ab"), ("Testing", "c")):
        lines = [f"{kind}/sun_{number}.jpg" for kind in kinds for number in numbers]
        text(top / f"SUN397/Partitions/{part}_01.txt", lines)
        for line in lines:
            picture(top / "SUN397" / line[1:])
    return {"train": 794, "test": 397}


def pets(top):
    top = top / "oxford-iiit-pet"
    kinds = [
        "Abyssinian",
        "Bengal",
        "american_bulldog",
        *(f"kind_{'abcdefghijklmnopqrstuvwxyz_1234567'[i]}x" for i in range(34)),
    ]
    for part, numbers in (("trainval", (1, 10, 2)), ("test", (3,))):
        lines = [
            f"{kind}_{n} {k + 1} 1 1"
            for k, kind in enumerate(sorted(kinds, key=str.lower))
            for n in numbers
        ]
        text(top / f"annotations/{part}.txt", lines)
        for line in lines:
            picture(top / f"images/{line.split()[0]}.jpg")
    return {"train": 111, "test": 37}


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def mnist(top):
    top = top / "MNIST/raw"
    top.mkdir(parents=True)
    for part, n in (("train", 30), ("t10k", 10)):
        (top / f"{part}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(idx(noise(part, shape=(n, 28, 28))))
        )
        (top / f"{part}-labels-idx1-ubyte").write_bytes(idx((np.arange(n) % 10).astype(np.uint8)))
    return {"train": 30, "test": 10}


def svhn(top):
    for part, n in (("train", 30), ("test", 10)):
        savemat(
            top / f"svhn/{part}_32x32.mat",
            X=noise(part, shape=(32, 32, 3, n)),
            y=(np.arange(n) % 10 + 1).astype(np.uint8)[:, None],
        )
    return {"train": 30, "test": 10}


def stl10(top):
    top = top / "stl10_binary"
    top.mkdir(parents=True)
    for part, n in (("train", 20), ("test", 10)):
        noise(part, shape=(n, 3, 96, 96)).tofile(top / f"{part}_X.bin")
        (np.arange(n) % 10 + 1).astype(np.uint8).tofile(top / f"{part}_y.bin")
    text(
        top / "class_names.txt",
        ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"],
    )
    return {"train": 20, "test": 10}


def dtd(top):
    kinds = ["banded", "polka-dotted", *(f"texture_{i:02d}" for i in range(45))]
    for part in ("train", "val", "test"):
        lines = [f"{kind}/{kind}_{part}.jpg" for kind in kinds]
        text(top / f"dtd/dtd/labels/{part}1.txt", lines)
        for line in lines:
            picture(top / "dtd/dtd/images" / line)
    return {"train": 94, "test": 47}


def resisc45(top):
    kinds = ["airplane", "baseball_diamond", *(f"land_{i:02d}" for i in range(43))]
    for part, numbers in (("train", (1, 2)), ("val", (3,)), ("test", (4,))):
        lines = [f"{kind}_{n:03d}.jpg" for n in numbers for kind in kinds]
        text(top / f"resisc45/resisc45-{part}.txt", lines)
        for line in lines:
            picture(top / f"resisc45/NWPU-RESISC45/{line[:-8]}/{line}")
    return {"train": 90, "test": 45}


def flowers(top):
    top = top / "flowers-102"
    labels = np.arange(408) % 102 + 1
    for i in range(408):
        picture(top / f"jpg/image_{i + 1:05d}.jpg")
    savemat(top / "imagelabels.mat", labels=labels[None])
    savemat(
        top / "setid.mat",
        trnid=np.arange(1, 103)[None],
        valid=np.arange(103, 205)[None],
        tstid=np.arange(205, 409)[None],
    )
    return {"train": 102, "test": 204}


def imagenet100(top):
    kinds = [f"n{i + 1440764:08d}" for i in range(100)]
    for i, kind in enumerate(kinds):
        for k in range(2):
            picture(top / f"imagenet100/train.X{i // 25 + 1}/{kind}/{kind}_{k}.JPEG")
        picture(top / f"imagenet100/val.X/{kind}/ILSVRC2012_val_{i:08d}.JPEG")
    text(
        top / "imagenet100/Labels.json",
        [json.dumps({kind: f"thing {i}, another name" for i, kind in enumerate(kinds)})],
    )
    return {"train": 200, "test": 100}


def tinyimagenet(top):
    top = top / "tiny-imagenet-200"
    kinds = [f"n{i + 1443537:08d}" for i in range(200)]
    for i, kind in enumerate(kinds):
        picture(top / f"train/{kind}/images/{kind}_0.JPEG")
        text(top / f"train/{kind}/{kind}_boxes.txt", [f"{kind}_0.JPEG\t0\t0\t1\t1"])
        picture(top / f"val/images/val_{i}.JPEG")
    text(top / "wnids.txt", kinds[::-1])
    text(
        top / "words.txt",
        [
            *(f"{kind}\tthing {i}, another name" for i, kind in enumerate(kinds)),
            "n00000001\tunused",
        ],
    )
    text(
        top / "val/val_annotations.txt",
        [f"val_{i}.JPEG\t{kind}\t0\t0\t62\t62" for i, kind in enumerate(kinds)],
    )
    return {"train": 200, "test": 200}


SECOND = {
    "cifar100": "kind_1",
    "gtsrb": table.ROWS["gtsrb"].classnames[1],
    "eurosat": "forest",
    "cars": "Make 1 Sedan 2012",
    "sun397": "jail cell",
    "pets": "Bengal",
    "mnist": "1",
    "svhn": "1",
    "stl10": "bird",
    "dtd": "polka-dotted",
    "resisc45": "baseball diamond",
    "flowers": "hard-leaved pocket orchid",
    "imagenet100": "thing 1",
    "tinyimagenet": "thing 1",
}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """made(name) -> (folder with a small archive of the dataset, its counts); the table then
    expects those counts."""

    def make(name, **options):
        folder = tmp_path / f"raw-{name}"
        folder.mkdir()
        counts = globals()[name](folder, **options)
        monkeypatch.setitem(table.ROWS, name, replace(table.ROWS[name], **counts))
        return folder, counts

    return make


def prepared(name, folder, out, **options):
    return papers.prepare(name, folder, out, **{"size": SIZE} | options)


def files_of(cache):
    return {path.name: path.read_bytes() for path in cache.iterdir() if path.name != ".lock"}


# Every dataset


@pytest.mark.parametrize("name", NAMES)
def test_archive_to_task(name, made, tmp_path):
    folder, counts = made(name)
    source = papers.listing(name, folder)
    cache = prepared(name, folder, tmp_path)
    task = data.load(name, tmp_path)
    dev = counts.get("dev") or counts["train"] // 10
    assert [len(task.train), len(task.dev), len(task.test)] == [
        counts["train"] - (0 if "dev" in counts else dev),
        dev,
        counts["test"],
    ]
    assert (
        task.test.images.shape == (counts["test"], SIZE, SIZE, 3)
        and task.test.images.dtype == torch.uint8
    )
    assert task.train.labels.dtype == torch.int64 and task.prompts == table.prompts(name)
    assert (
        len(task.classnames) == len(set(task.classnames)) == table.ROWS[name].classes
        and task.classnames[1] == SECOND[name]
    )
    assert set(task.test.labels.tolist()) == set(range(len(task.classnames)))
    for part, split in (("train", task.train), ("dev", task.dev), ("test", task.test)):
        items = getattr(source, part) or source.train
        for i, row in enumerate(np.load(cache / f"{part}_rows.npy")[:20]):
            assert (
                np.array_equal(split.images[i], clip_square(items.read(row), SIZE))
                and split.labels[i] == items.labels[row]
            )
    assert check.check(name, cache, pixels=True) == []
    assert sorted(files_of(cache)) == [
        "card.json",
        *sorted(f"{s}_{k}.npy" for s in check.SPLITS for k in check.PARTS),
    ]


@pytest.mark.parametrize(
    "name, kind, options",
    [
        ("gtsrb", "GTSRB", {"split": "test"}),
        ("cars", "StanfordCars", {"split": "train"}),
        ("dtd", "DTD", {"split": "test"}),
        ("pets", "OxfordIIITPet", {"split": "test"}),
        ("mnist", "MNIST", {"train": False}),
        ("cifar100", "CIFAR100", {"train": False}),
        ("stl10", "STL10", {"split": "test"}),
        ("svhn", "SVHN", {"split": "test"}),
        ("flowers", "Flowers102", {"split": "test"}),
    ],
)
def test_layouts_are_those_torchvision_reads(name, kind, options, made, monkeypatch):
    """An independent reader of the same folder sees the same images under the same class."""
    import torchvision.datasets

    from bvlib.core import _torchvision  # noqa: F401

    folder, _ = made(name)
    source = papers.listing(name, folder)
    if name == "mnist":  # torchvision wants them unpacked
        for path in (folder / "MNIST/raw").glob("*.gz"):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    reader = getattr(torchvision.datasets, kind)
    if hasattr(reader, "_check_integrity"):  # the hashes of the real files
        monkeypatch.setattr(reader, "_check_integrity", lambda self: True)
        monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *args: True)
    theirs = reader(str(folder / "svhn" if name == "svhn" else folder), **options)
    items = source.train if "train" in options.values() else source.test
    ours = {
        np.asarray(items.read(i)).tobytes(): source.classnames[items.labels[i]]
        for i in range(len(items))
    }
    assert len(ours) == len(theirs) > 0
    for image, label in (theirs[i] for i in range(len(theirs))):
        found = ours[np.asarray(image.convert("RGB")).tobytes()]
        assert (
            found == source.classnames[label]
            if name != "pets"
            else found.title() == theirs.classes[label]
        )


def test_layouts_of_other_sources_are_found_too(made):
    """Kaggle nests the folders of Cars; the papers' code keeps its list with labels in devkit;
    SVHN may lie bare."""
    folder, counts = made("cars")
    top = folder / "stanford_cars"
    (top / "cars_train").rename(top / "nested")
    (top / "cars_train").mkdir()
    (top / "nested").rename(top / "cars_train/cars_train")
    (top / "cars_test_annos_withlabels.mat").rename(top / "devkit/cars_test_annos_withlabels.mat")
    assert len(papers.listing("cars", folder).train) == counts["train"]
    folder, counts = made("svhn")
    assert len(papers.listing("svhn", folder / "svhn").test) == counts["test"]


@pytest.mark.parametrize("side", [(40, 30), (30, 41), (24, 24), (10, 17), (25, 24)])
def test_images_are_prepared_as_open_clip_does(side):
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    from bvlib.core import _torchvision  # noqa: F401

    image = Image.fromarray(noise(side, shape=(*side, 3)))
    want = CenterCrop(SIZE)(Resize(SIZE, InterpolationMode.BICUBIC)(image))
    assert np.array_equal(clip_square(image, SIZE), np.asarray(want))


def test_named_class_folders_of_imagenet100(made, tmp_path):
    folder, _ = made("imagenet100")
    top = folder / "imagenet100"
    (top / "train").mkdir()
    for old in top.glob("train.X*/*"):
        old.rename(top / "train" / f"a_{old.name[1:]}")
    (top / "val").mkdir()
    for old in (top / "val.X").iterdir():
        old.rename(top / "val" / f"a_{old.name[1:]}")
    assert papers.listing("imagenet100", folder).classnames[0] == "a 01440764"


# What is wrong, in one line


def cut(path):
    def damage(folder):
        whole = (folder / path).read_bytes()
        (folder / path).write_bytes(whole[: len(whole) // 2])

    return damage


def gone(path):
    return lambda folder: (folder / path).unlink()


def put(path, data):
    return lambda folder: (folder / path).write_bytes(data)


WRONG = [
    (
        "cifar100",
        cut("cifar-100-python/train"),
        ["train", "refused without running", "fetch it again"],
    ),
    ("cifar100", put("cifar-100-python/train", pickle.dumps({"data": [1]})), ["no CIFAR batch"]),
    ("cifar100", put("cifar-100-python/meta", pickle.dumps([1])), ["holds no dict"]),
    ("gtsrb", gone("gtsrb/GT-final_test.csv"), ["GT-final_test.csv", "fetch"]),
    (
        "gtsrb",
        put("gtsrb/GT-final_test.csv", b"a,b\n1,2\n"),
        ["no table with Filename and ClassId"],
    ),
    (
        "gtsrb",
        gone("gtsrb/GTSRB/Training/00007/00001_00000.ppm"),
        ["85 train images where 86 are expected", "limit"],
    ),
    ("eurosat", gone("eurosat/2750/River/River_3.jpg"), ["eurosat has", "are expected"]),
    (
        "eurosat",
        lambda f: (f / "eurosat/2750/River").rename(f / "eurosat/2750/Rivers"),
        ["'River' is missing or not one of the ten"],
    ),
    (
        "cars",
        gone("stanford_cars/cars_train/00005.jpg"),
        ["1 of 392 images", "00005.jpg", "partial"],
    ),
    ("cars", cut("stanford_cars/devkit/cars_train_annos.mat"), ["no MATLAB file with annotations"]),
    ("sun397", gone("SUN397/Partitions/Testing_01.txt"), ["Testing_01.txt"]),
    (
        "sun397",
        put("SUN397/Partitions/Training_01.txt", b"abbey 1\n"),
        ["line 1 is not of the form"],
    ),
    ("pets", gone("oxford-iiit-pet/images/Bengal_3.jpg"), ["Bengal_3.jpg", "partial"]),
    ("mnist", cut("MNIST/raw/train-images-idx3-ubyte.gz"), ["no whole gzip"]),
    ("mnist", cut("MNIST/raw/t10k-labels-idx1-ubyte"), ["no whole idx file"]),
    ("svhn", cut("svhn/test_32x32.mat"), ["no MATLAB file with X, y"]),
    ("svhn", gone("svhn/train_32x32.mat"), ["svhn/train_32x32.mat or train_32x32.mat"]),
    ("stl10", put("stl10_binary/test_X.bin", b"1" * 1000), ["no whole number of 96 x 96"]),
    ("stl10", cut("stl10_binary/train_y.bin"), ["20 images and 10 labels"]),
    ("dtd", gone("dtd/dtd/labels/val1.txt"), ["val1.txt"]),
    (
        "dtd",
        put("dtd/dtd/images/banded/banded_test.jpg", b"no jpeg"),
        ["banded_test.jpg", "no readable image"],
    ),
    ("dtd", cut("dtd/dtd/images/banded/banded_test.jpg"), ["banded_test.jpg", "no readable image"]),
    ("resisc45", gone("resisc45/resisc45-train.txt"), ["resisc45-train.txt"]),
    (
        "resisc45",
        gone("resisc45/NWPU-RESISC45/airplane/airplane_001.jpg"),
        ["airplane_001.jpg", "partial"],
    ),
    ("flowers", cut("flowers-102/imagelabels.mat"), ["no MATLAB file with labels"]),
    ("imagenet100", gone("imagenet100/Labels.json"), ["Labels.json"]),
    (
        "imagenet100",
        lambda f: (f / "imagenet100/val.X/n01440764").rename(f / "imagenet100/val.X/n99999999"),
        ["'n99999999'"],
    ),
    ("tinyimagenet", gone("tiny-imagenet-200/words.txt"), ["words.txt"]),
    (
        "tinyimagenet",
        gone("tiny-imagenet-200/train/n01443537/images/n01443537_0.JPEG"),
        ["no train image of 1 of 200 classes", "'thing 0'"],
    ),
]


@pytest.mark.parametrize(
    "name, damage, words", WRONG, ids=[f"{w[0]}-{i}" for i, w in enumerate(WRONG)]
)
def test_wrong_or_partial_archives_are_named_in_one_line(name, damage, words, made, tmp_path):
    folder, _ = made(name)
    damage(folder)
    with one_line(*words):
        prepared(name, folder, tmp_path)
    assert not (tmp_path / name / "card.json").exists()
    with one_line(f"no prepared {name}", f"bv data prepare {name} --paper"):
        data.load(name, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_missing_archives(name, tmp_path):
    with pytest.raises(MissingData, match="fetch|unpack"):
        prepared(name, tmp_path, tmp_path / "out")
    with one_line(f"no folder {tmp_path / 'nowhere'}", "bv data fetch"):
        prepared(name, tmp_path / "nowhere", tmp_path / "out")


def test_other_refusals(made, tmp_path):
    with one_line("unknown dataset of the papers 'pet'", "did you mean 'pets'"):
        papers.prepare("pet", tmp_path, tmp_path)
    with one_line("size 0"):
        papers.prepare("pets", tmp_path, tmp_path, size=0)
    folder, _ = made("mnist")
    cache = prepared("mnist", folder, tmp_path)
    with one_line("was prepared with size 24", "size 32", "another out"):
        prepared("mnist", folder, tmp_path, size=32)
    with one_line("split of seed 0, not 1"):
        data.load("mnist", tmp_path, seed=1)
    with one_line("cache of 'mnist', not of 'svhn'"):
        data.load("svhn", cache)
    (cache / "card.json").write_text("{")
    with one_line("card.json is damaged"):
        data.load("mnist", tmp_path)


def test_a_place_that_cannot_be_written(made, tmp_path):
    folder, _ = made("mnist")
    (tmp_path / "file").write_text("")
    with one_line("cannot write", "name another folder"):
        prepared("mnist", folder, tmp_path / "file")
    with one_line("cannot write", "name another folder"):
        fetch.fetch("mnist", tmp_path / "file")


def test_no_room_is_said_first(made, tmp_path, monkeypatch):
    folder, _ = made("mnist")
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with one_line("0.0 GB are free", "make room"):
        prepared("mnist", folder, tmp_path)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_wants_to_run_is_refused_without_running(protocol, made, tmp_path):
    folder, _ = made("cifar100")
    value = {"data": Evil(tmp_path / "ran"), "fine_labels": []}
    (folder / "cifar-100-python/train").write_bytes(pickle.dumps(value, protocol))
    with one_line("refused without running it", "system"):
        prepared("cifar100", folder, tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_newer_pickles_of_plain_arrays_are_read(protocol, made, tmp_path):
    folder, _ = made("cifar100")
    value = {
        "data": noise("train", shape=(200, 3072)),
        "fine_labels": [i % 100 for i in range(200)],
    }
    want = np.asarray(papers.listing("cifar100", folder).train.read(7))
    (folder / "cifar-100-python/train").write_bytes(pickle.dumps(value, protocol))
    assert np.array_equal(papers.listing("cifar100", folder).train.read(7), want)
    assert np.array_equal(want, value["data"][7].reshape(3, 32, 32).transpose(1, 2, 0))


# Train and test


def test_train_images_that_are_test_images_are_left_out_and_said(made, tmp_path):
    folder, counts = made("pets")
    images = folder / "oxford-iiit-pet/images"
    (images / "Bengal_1.jpg").write_bytes((images / "Abyssinian_3.jpg").read_bytes())
    cache = prepared("pets", folder, tmp_path)
    assert check.check("pets", cache) in (
        [f"1 {part} images left out, as they are also test images"] for part in ("train", "dev")
    )
    task = data.load("pets", tmp_path)
    assert len(task.train) + len(task.dev) == counts["train"] - 1
    assert task.card["left_out"]["train"] + task.card["left_out"]["dev"] == [
        ["Bengal_1.jpg", "Abyssinian_3.jpg"]
    ]
    assert np.load(cache / "train_images.npy").shape[0] == len(task.train)


def test_too_many_twins_mean_another_archive(made, tmp_path):
    folder, _ = made("dtd")
    images = folder / "dtd/dtd/images"
    for path in images.glob("*/*_train.jpg"):
        path.write_bytes(path.with_name(path.name.replace("_train", "_test")).read_bytes())
    with one_line("dtd: ", "images are also test images (first: ", " is ", "_test.jpg"):
        prepared("dtd", folder, tmp_path)
    assert not (tmp_path / "dtd/card.json").exists()


def rewrite(cache, name, change):
    array = np.load(cache / name)
    change(array)
    np.save(cache / name, array)
    card = json.loads((cache / "card.json").read_text())
    card["sha256"][name] = hashlib.sha256((cache / name).read_bytes()).hexdigest()
    (cache / "card.json").write_text(json.dumps(card))


def test_check_finds_overlap_labels_counts_and_damage(made, tmp_path):
    folder, _ = made("mnist")
    cache = prepared("mnist", folder, tmp_path / "a")
    rewrite(
        cache, "train_hashes.npy", lambda a: a.__setitem__(5, np.load(cache / "test_hashes.npy")[3])
    )
    with one_line("1 train images are also test images (first: train row 5 is test row 3)"):
        data.load("mnist", cache)
    cache = prepared("mnist", folder, tmp_path / "b")
    rewrite(cache, "test_labels.npy", lambda a: a.__setitem__(0, 10))
    with one_line("test labels reach from 1 to 10, outside 0..9"):
        check.check("mnist", cache)
    cache = prepared("mnist", folder, tmp_path / "c")
    rewrite(cache, "test_images.npy", lambda a: a.__setitem__(2, 0))
    assert check.check("mnist", cache) == []
    with one_line("1 test images are not those that were prepared (first: row 2)"):
        check.check("mnist", cache, pixels=True)
    np.save(cache / "dev_labels.npy", np.zeros(3, np.int64))
    with one_line("dev_labels.npy is not the file that its card describes"):
        check.check("mnist", cache)
    whole = (cache / "train_images.npy").read_bytes()
    (cache / "train_images.npy").write_bytes(whole[:-10])
    with one_line("train_images.npy is missing, cut short"):
        check.check("mnist", cache)


def test_check_holds_a_cache_to_the_table(made, tmp_path, monkeypatch):
    folder, _ = made("mnist")
    cache = prepared("mnist", folder, tmp_path)
    monkeypatch.setitem(table.ROWS, "mnist", replace(table.ROWS["mnist"], train=60_000))
    with one_line("30 train images where 60,000 are expected"):
        check.check("mnist", cache)


def test_a_limit_is_said_and_allows_a_partial_source(made, tmp_path, monkeypatch):
    folder, _ = made("svhn")
    monkeypatch.setitem(table.ROWS, "svhn", replace(table.ROWS["svhn"], train=73_257))
    cache = prepared("svhn", folder, tmp_path, limit=4)
    task = data.load("svhn", tmp_path)
    assert [len(task.train), len(task.dev), len(task.test)] == [4, 3, 4]
    assert check.check("svhn", cache) == [
        "limited to 4 images a split: no numbers of the whole dataset",
        "svhn has 30 train images where 73,257 are expected",
    ]


def test_dev_is_the_seeded_split_of_the_papers_code(made, tmp_path):
    folder, _ = made("cifar100")
    rows = {}
    for seed in (0, 1):
        for again in "ab":
            cache = prepared("cifar100", folder, tmp_path / f"{seed}{again}", seed=seed)
            rows[seed, again] = [
                np.load(cache / f"{part}_rows.npy").tolist() for part in ("train", "dev")
            ]
        train, dev = rows[seed, "a"]
        assert sorted(train + dev) == list(range(200)) and rows[seed, "a"] == rows[seed, "b"]
        theirs = torch.utils.data.random_split(
            range(200), [180, 20], generator=torch.Generator().manual_seed(seed)
        )
        assert [train, dev] == [list(part) for part in theirs]
        task = data.load("cifar100", tmp_path / f"{seed}a", seed=seed)
        assert task.dev.labels.tolist() == [i % 100 for i in dev]
    assert rows[0, "a"][1] != rows[1, "a"][1]


def test_eurosat_test_images_are_the_same_for_every_seed(made, tmp_path):
    folder, _ = made("eurosat")
    hashes = [
        np.load(prepared("eurosat", folder, tmp_path / str(seed), seed=seed) / "test_hashes.npy")
        for seed in (0, 1)
    ]
    assert np.array_equal(*hashes)


# Interrupted and gone on


def told_at_each_step(monkeypatch, stop):
    """[(split, images done), ...], filled as a preparation goes on; it is cut at step ``stop``."""
    seen = []

    class Bar(contextlib.nullcontext):
        def __init__(self, desc, total, initial, disable):
            super().__init__()
            self.what, self.done = desc, initial

        def update(self, count):
            self.done += count
            seen.append((self.what, self.done))
            if len(seen) == stop:
                raise KeyboardInterrupt

    monkeypatch.setattr(write, "tqdm", Bar)
    return seen


@pytest.mark.parametrize(
    "name, stop", [("stl10", 1), ("stl10", 3), ("stl10", 4), ("stl10", 6), ("pets", 2), ("pets", 6)]
)
def test_an_interrupted_prepare_goes_on_and_gives_the_same_bytes(
    name, stop, made, tmp_path, monkeypatch
):
    monkeypatch.setattr(write, "CHUNK", {"stl10": 4, "pets": 24}[name])
    folder, _ = made(name)
    if name == "pets":
        images = folder / "oxford-iiit-pet/images"
        (images / "Bengal_1.jpg").write_bytes((images / "Abyssinian_3.jpg").read_bytes())
    whole = files_of(prepared(name, folder, tmp_path / "whole"))
    cut_off = tmp_path / "cut"
    seen = told_at_each_step(monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        prepared(name, folder, cut_off)
    with one_line("no prepared"):
        data.load(name, cut_off)
    for draft in cut_off.glob("*/.*_images.part"):
        with draft.open("ab") as file:
            file.write(b"half an image")
    cache = prepared(name, folder, cut_off)
    assert len(seen) == len(set(seen)), "nothing is made twice"
    assert files_of(cache) == whole


def test_a_source_that_changed_is_not_gone_on_with(made, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "CHUNK", 4)
    folder, _ = made("mnist")
    told_at_each_step(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        prepared("mnist", folder, tmp_path)
    new = noise("another", shape=(10, 28, 28))
    (folder / "MNIST/raw/t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(new)))
    os.utime(folder / "MNIST/raw/t10k-images-idx3-ubyte.gz", (1, 1))
    prepared("mnist", folder, tmp_path)
    task = data.load("mnist", tmp_path)
    assert np.array_equal(
        task.test.images[0], clip_square(Image.fromarray(new[0]).convert("RGB"), SIZE)
    )


# The task


def test_a_task_stays_on_disk_and_serves_as_one(made, tmp_path):
    folder, _ = made("mnist")
    cache = prepared("mnist", folder, tmp_path)
    task = data.load("mnist", cache, {"train": 6, "dev": None, "test": 5})
    assert [len(task.train), len(task.dev), len(task.test)] == [6, 3, 5]
    before = (cache / "test_images.npy").read_bytes()
    base = np.load(cache / "test_images.npy", mmap_mode="r")
    task.test.images[0] = 0
    assert (cache / "test_images.npy").read_bytes() == before and base[0].any(), (
        "changes stay in memory"
    )
    task = data.load("mnist", cache)
    assert task.digest == data.load("mnist", cache).digest != task.few(3).digest
    assert len(task.few(3).test) == 3 and task.check_class(9) == 9
    halves = [task.train.half(which) for which in "ab"]
    assert sum(map(len, halves)) == len(task.train)


# Fetching


@pytest.fixture
def server(monkeypatch):
    """A web server of the files in ``.files``; ``.cut`` drops the line after so many bytes,
    ``.ranges`` False ignores Range."""
    state = SimpleNamespace(files={}, cut=None, ranges=True, asked=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            data, wanted = state.files.get(self.path), self.headers.get("Range")
            state.asked.append(wanted)
            if data is None:
                self.send_error(404)
                return
            start = int(wanted[6:-1]) if wanted and state.ranges else 0
            if start >= len(data) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start:] if state.cut is None else data[start : start + state.cut])
            self.close_connection = True

        def log_message(self, *args):
            pass

    host = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=host.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{host.server_address[1]}"
    monkeypatch.setenv("no_proxy", "*")
    yield state
    host.shutdown()
    host.server_close()
    thread.join()


def tarred(folder, top):
    with tarfile.open(fileobj=(out := io.BytesIO()), mode="w:gz") as archive:
        archive.add(folder / top, top)
    return out.getvalue()


def zipped(folder, top):
    with zipfile.ZipFile(out := io.BytesIO(), "w") as archive:
        for path in sorted((folder / top).rglob("*")):
            archive.write(path, path.relative_to(folder))
    return out.getvalue()


def served(monkeypatch, server, name, data, digest=None, **changes):
    """The table's one file of ``name`` then is ``data`` on the server."""
    file = table.ROWS[name].files[0]
    server.files["/archive"] = data
    digest = hashlib.md5(data).hexdigest() if digest is None else digest
    file = replace(file, **{"url": f"{server.url}/archive", "digest": digest} | changes)
    monkeypatch.setitem(table.ROWS, name, replace(table.ROWS[name], files=(file,)))
    return file


def test_fetch_unpacks_and_prepare_reads(made, tmp_path, monkeypatch, server):
    folder, _ = made("stl10")
    whole = tarred(folder, "stl10_binary")
    served(monkeypatch, server, "stl10", whole)
    raw = tmp_path / "raw"
    assert fetch.fetch("stl10", raw) == [raw / "stl10_binary"]
    assert fetch.fetch("stl10", raw) == [raw / "stl10_binary"] and len(server.asked) == 1, (
        "brought once"
    )
    prepared("stl10", raw, tmp_path)
    card = data.load("stl10", tmp_path).card
    assert card["archives"] == {"stl10_binary.tar.gz": hashlib.md5(whole).hexdigest()}


def test_fetch_goes_on_after_a_cut(made, tmp_path, monkeypatch, server):
    folder, _ = made("eurosat")
    whole = zipped(folder / "eurosat", "2750")
    file = served(monkeypatch, server, "eurosat", whole)
    part = tmp_path / "raw" / f"{file.path}.part"
    monkeypatch.setattr(fetch, "TRIES", 1)
    server.cut = 1000
    with one_line(
        "cut after 1,000 of", "goes on from there", file.url, str(tmp_path / "raw" / file.path)
    ):
        fetch.fetch("eurosat", tmp_path / "raw")
    assert part.read_bytes() == whole[:1000]
    server.cut = None
    fetch.fetch("eurosat", tmp_path / "raw")
    assert server.asked == [None, "bytes=1000-"] and not part.exists()
    assert (tmp_path / "raw" / file.path).read_bytes() == whole
    assert len(papers.listing("eurosat", tmp_path / "raw").train) == 80


def test_one_call_outlives_several_cuts_and_a_whole_part(made, tmp_path, monkeypatch, server):
    made("mnist")
    whole = noise("file", shape=(3000,)).tobytes()
    file = served(monkeypatch, server, "mnist", whole)
    server.cut = 1000
    assert fetch.fetch("mnist", tmp_path)[0].read_bytes() == whole and len(server.asked) == 3
    (tmp_path / file.path).rename(tmp_path / f"{file.path}.part")
    assert fetch.fetch("mnist", tmp_path)[0].read_bytes() == whole, "a part that is whole already"


def test_a_server_that_cannot_go_on_starts_again(tmp_path, monkeypatch, server):
    whole = noise("file", shape=(3000,)).tobytes()
    file = served(monkeypatch, server, "mnist", whole)
    server.ranges = False
    part = tmp_path / f"{file.path}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"old")
    assert fetch.fetch("mnist", tmp_path)[0].read_bytes() == whole


def test_a_wrong_hash_is_refused(made, tmp_path, monkeypatch, server):
    file = served(monkeypatch, server, "stl10", b"something else", digest="0" * 32)
    with one_line("has the hash", "not 000", "delete it", file.url):
        fetch.fetch("stl10", tmp_path)
    with one_line("has the hash"):
        prepared("stl10", tmp_path, tmp_path)
    served(
        monkeypatch,
        server,
        "stl10",
        b"something else",
        digest=hashlib.sha256(b"something else").hexdigest(),
    )
    with one_line("does not unpack", "partial or no archive"):
        fetch.fetch("stl10", tmp_path)


def test_offline_missing_and_by_hand(tmp_path, monkeypatch, server):
    served(monkeypatch, server, "stl10", b"", url="http://127.0.0.1:9/archive")
    with one_line(
        "could not fetch http://127.0.0.1:9/archive",
        "put it at",
        str(tmp_path / "stl10_binary.tar.gz"),
    ):
        fetch.fetch("stl10", tmp_path)
    served(monkeypatch, server, "stl10", b"", url=f"{server.url}/nothing")
    with one_line("404", "Not Found", "bring the file yourself"):
        fetch.fetch("stl10", tmp_path)
    with one_line("cannot be fetched by itself", "kaggle.com", "imagenet100.zip"):
        fetch.fetch("imagenet100", tmp_path)
    served(monkeypatch, server, "stl10", b"", url="file:///etc/passwd")
    with one_line("no web address"):
        fetch.fetch("stl10", tmp_path)


def test_an_archive_put_there_by_hand_is_unpacked_by_prepare(made, tmp_path):
    folder, _ = made("imagenet100")
    raw = tmp_path / "raw/imagenet100"
    raw.mkdir(parents=True)
    (raw / "imagenet100.zip").write_bytes(zipped(folder / "imagenet100", "."))
    prepared("imagenet100", tmp_path / "raw", tmp_path)
    assert len(data.load("imagenet100", tmp_path).test) == 100
    assert len(fetch.fetch("imagenet100", tmp_path / "raw")) == 1, "nothing left to bring"


def test_a_half_unpacked_archive_is_unpacked_again(made, tmp_path, monkeypatch, server):
    folder, _ = made("stl10")
    served(monkeypatch, server, "stl10", tarred(folder, "stl10_binary"))
    raw = tmp_path / "raw"
    fetch.fetch("stl10", raw)
    (raw / ".stl10_binary.tar.gz.unpacked").unlink()
    (raw / "stl10_binary/test_X.bin").unlink()
    assert len(papers.listing("stl10", raw).test) == 10


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("where", ["../escaped", "/tmp/bvlib-escaped"])
def test_archives_that_leave_their_folder_are_refused(kind, where, tmp_path, monkeypatch, server):
    out = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=out, mode="w") as archive:
            link = tarfile.TarInfo("stl10_binary/link")
            link.type, link.linkname = tarfile.SYMTYPE, where
            archive.addfile(link)
            member = tarfile.TarInfo("stl10_binary/../../escaped")
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))
    else:
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(where, "evil")
    served(monkeypatch, server, "stl10", out.getvalue())
    with one_line("holds the path", "refused"):
        fetch.fetch("stl10", tmp_path / "raw")
    assert not (tmp_path / "escaped").exists() and not os.path.exists("/tmp/bvlib-escaped")


def test_another_archive_with_a_right_name(tmp_path, monkeypatch, server):
    text(tmp_path / "other/readme.txt", ["hello"])
    served(monkeypatch, server, "stl10", tarred(tmp_path, "other"))
    with one_line("unpacks to something else", "stl10_binary"):
        fetch.fetch("stl10", tmp_path / "raw")


# The table


def test_every_entry_is_complete():
    listed = table.describe().set_index("name")
    assert (
        set(listed.index) == set(globals()) & set(table.ROWS) == set(papers.READERS)
        and len(listed) == 14
    )
    for name, row in table.ROWS.items():
        assert (
            row.what
            and row.licence
            and row.source
            and row.layout
            and row.split
            and row.names
            and row.files
        )
        assert all(prompt.count("{}") == 1 for prompt in table.prompts(name))
        for file in row.files:
            assert (
                (file.url or file.page)
                and len(file.digest) in (0, 32, 64)
                and (file.into is None) == (not file.gives)
            )
    assert (listed.train["cifar100"], listed.dev["cifar100"], listed.test["cifar100"]) == (
        45_000,
        5_000,
        10_000,
    )
    assert (listed.train["eurosat"], listed.dev["eurosat"], listed.dev["pets"]) == (
        21_600,
        2_700,
        368,
    )
    named = ("gtsrb", "eurosat", "flowers")
    assert [len(table.ROWS[name].classnames) for name in named] == [43, 10, 102]


def test_hashes_are_those_that_torchvision_publishes():
    from torchvision import datasets as theirs

    from bvlib.core import _torchvision  # noqa: F401

    ours = {
        os.path.basename(file.path): file.digest
        for row in table.ROWS.values()
        for file in row.files
    }
    assert (
        ours["cifar-100-python.tar.gz"] == theirs.CIFAR100.tgz_md5
        and ours["stl10_binary.tar.gz"] == theirs.STL10.tgz_md5
    )
    assert (
        ours["dtd-r1.0.1.tar.gz"] == theirs.DTD._MD5
        and ours["SUN397.tar.gz"] == theirs.SUN397._DATASET_MD5
    )
    assert all(
        ours[name] == digest
        for name, digest in [*theirs.MNIST.resources, *theirs.Flowers102._file_dict.values()]
    )
    assert all(
        ours[name] == digest
        for _, name, digest in map(theirs.SVHN.split_list.get, ("train", "test"))
    )
    assert all(
        ours[os.path.basename(url)] == digest for url, digest in theirs.OxfordIIITPet._RESOURCES
    )


def test_examples_in_docstrings():
    assert doctest.testmod(table).failed == doctest.testmod(write).failed == 0
