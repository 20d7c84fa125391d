"""Readers of the papers' datasets that come as arrays: pickles, idx, .mat and raw bytes, and .mat
lists of image files.

Nothing in an archive is run: CIFAR's pickles are read by an unpickler that knows plain values and
number arrays only.
"""

from __future__ import annotations

import gzip
import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bvlib.worlds.papers import names
from bvlib.worlds.papers.source import Items, Listing, broken, files, find, lines_of

try:
    from numpy._core.multiarray import _reconstruct
except ImportError:  # numpy 1
    from numpy.core.multiarray import _reconstruct


def _latin1(text: str, encoding: str) -> bytes:
    """What pickles of protocol 2 write bytes with, for that one use only."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding}")
    return text.encode("latin1")


class _Plain(pickle.Unpickler):
    """Reads plain values and number arrays; anything else that a pickle names is refused before it
    is looked up."""

    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(
                f"it wants {module}.{name}, which no archive of images needs"
            )
        return self.ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it points outside itself")


def plain_pickle(path: Path) -> dict:
    """A pickle of plain values and number arrays, without running anything in it. Raises BvError
    for any other."""
    try:
        with path.open("rb") as file:
            found = _Plain(file, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise broken(path, f"refused without running it ({' '.join(str(error).split())})") from None
    except Exception:  # a damaged pickle raises many kinds
        raise broken(path, "no whole pickle") from None
    if not isinstance(found, dict):
        raise broken(path, "it holds no dict")
    return found


def _array_items(images: np.ndarray, labels: Sequence[int], path: Path) -> Items:
    """Images (N, H, W) or (N, H, W, 3) uint8 with labels."""
    labels = np.array(labels, np.int64).reshape(-1)
    if len(images) != len(labels):
        raise broken(path, f"{len(images)} images and {len(labels)} labels")
    state = path.stat()
    return Items(
        labels,
        lambda i: Image.fromarray(np.ascontiguousarray(images[i])).convert("RGB"),
        lambda i: f"{path.name} {i}",
        f"{state.st_size} {state.st_mtime_ns}",
    )


def _cifar100(folder: Path) -> Listing:
    top = find(folder, "cifar-100-python")
    splits = []
    for part in ("train", "test"):
        path = find(top, part)
        batch = plain_pickle(path)
        data, labels = batch.get("data"), batch.get("fine_labels")
        if (
            not isinstance(data, np.ndarray)
            or data.dtype != np.uint8
            or data.shape[1:] != (3072,)
            or not isinstance(labels, list)
        ):
            raise broken(path, "no CIFAR batch (data uint8 N x 3072, fine_labels)")
        splits.append(_array_items(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels, path))
    names = plain_pickle(find(top, "meta")).get("fine_label_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise broken(top / "meta", "it lists no fine_label_names")
    return Listing(names, *splits)


def _idx(path: Path, dims: int) -> np.ndarray:
    """The unsigned bytes of an idx file with ``dims`` dimensions, gzipped or not."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error):
        raise broken(path, "no whole gzip file") from None
    shape = np.frombuffer(data[4 : 4 + 4 * dims], ">u4").astype(np.int64)
    if data[:4] != bytes([0, 0, 8, dims]) or len(data) != 4 + 4 * dims + shape.prod():
        raise broken(path, f"no whole idx file of {dims} dimensions")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)


def _mnist(folder: Path) -> Listing:
    top = find(folder, "MNIST/raw", "mnist/raw")
    splits = []
    for part in ("train", "t10k"):
        images, labels = (
            find(top, f"{part}-{kind}-ubyte", f"{part}-{kind}-ubyte.gz")
            for kind in ("images-idx3", "labels-idx1")
        )
        splits.append(_array_items(_idx(images, 3), _idx(labels, 1), images))
    return Listing(list("0123456789"), *splits)


def _mat(path: Path, *keys: str, **options: Any) -> list[np.ndarray]:
    """Arrays of a MATLAB file. Raises BvError when it cannot be read or lacks one."""
    from scipy.io import loadmat

    try:
        found = loadmat(path, **options)
        return [found[key] for key in keys]
    except Exception:  # scipy raises many kinds for damaged files
        raise broken(path, f"no MATLAB file with {', '.join(keys)}") from None


def _svhn(folder: Path) -> Listing:
    splits = []
    for part in ("train", "test"):
        path = find(folder, f"svhn/{part}_32x32.mat", f"{part}_32x32.mat")
        images, labels = _mat(path, "X", "y")
        if images.dtype != np.uint8 or images.shape[:3] != (32, 32, 3) or images.ndim != 4:
            raise broken(path, "X is not 32 x 32 x 3 x N bytes")
        splits.append(
            _array_items(images.transpose(3, 0, 1, 2), labels.astype(np.int64) % 10, path)
        )  # the file calls zero 10
    return Listing(list("0123456789"), *splits)


def _stl10(folder: Path) -> Listing:
    top = find(folder, "stl10_binary", "stl10/stl10_binary")
    splits = []
    for part in ("train", "test"):
        path = find(top, f"{part}_X.bin")
        if not path.stat().st_size or path.stat().st_size % (3 * 96 * 96):
            raise broken(path, "no whole number of 96 x 96 images")
        images = (
            np.memmap(path, np.uint8, "r").reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
        )  # columns come first in the file
        labels = np.fromfile(find(top, f"{part}_y.bin"), np.uint8).astype(np.int64) - 1
        splits.append(_array_items(images, labels, path))
    return Listing(lines_of(find(top, "class_names.txt")), *splits)


def _cars(folder: Path) -> Listing:
    top = find(folder, "stanford_cars", "cars")
    kit = find(top, "devkit")
    splits = []
    for part, ways in (
        ("train", ("devkit/cars_train_annos.mat",)),
        ("test", ("cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat")),
    ):
        path = find(top, *ways)
        images = find(
            top, f"cars_{part}/cars_{part}", f"cars_{part}"
        )  # Kaggle's archive nests the folder
        notes = _mat(path, "annotations", squeeze_me=True)[0]
        if not {"fname", "class"} <= set(notes.dtype.names or ()):
            raise broken(path, "annotations without fname and class")
        notes = np.atleast_1d(notes)
        splits.append(
            files(
                [images / str(name) for name in notes["fname"]],
                [int(label) - 1 for label in notes["class"]],
                images,
            )
        )
    names = np.atleast_1d(_mat(kit / "cars_meta.mat", "class_names", squeeze_me=True)[0])
    return Listing([str(name).replace("_", " ") for name in names], *splits)


def _flowers(folder: Path) -> Listing:
    top = find(folder, "flowers-102", "flowers")
    images, path = find(top, "jpg"), find(top, "setid.mat")
    labels = (
        np.atleast_1d(_mat(find(top, "imagelabels.mat"), "labels", squeeze_me=True)[0]).astype(
            np.int64
        )
        - 1
    )
    splits = []
    for numbers in _mat(path, "trnid", "tstid", squeeze_me=True):
        numbers = np.atleast_1d(numbers).astype(np.int64)
        if numbers.min() < 1 or numbers.max() > len(labels):
            raise broken(path, f"it names images outside 1 to {len(labels)}")
        splits.append(
            files([images / f"image_{n:05d}.jpg" for n in numbers], labels[numbers - 1], images)
        )
    return Listing(list(names.FLOWERS), *splits)


READERS = {
    "cifar100": _cifar100,
    "mnist": _mnist,
    "svhn": _svhn,
    "stl10": _stl10,
    "cars": _cars,
    "flowers": _flowers,
}
