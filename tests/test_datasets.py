"""Prepared datasets: read, refused, listed and made; on small made files, and on the real ones if
here."""

import doctest
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bvlib.core import _torchvision  # noqa: F401  (must come before torchvision itself)
from bvlib.core.errors import BvError, MissingData
from bvlib.files.safe import file_sha256
from bvlib.worlds import images
from bvlib.worlds.words import KIND_WORDS
from bvmake.datasets import prepare

# isort: split

from torchvision import datasets

ROOT = Path(__file__).resolve().parents[1]


def made(n=12, classes=3, side=32, grey=False, seed=0):
    """The arrays of a small valid prepared file: 2 n images, labels cover all classes."""
    rng = np.random.default_rng(seed)
    shape = (n, side, side) if grey else (n, side, side, 3)
    return {
        "train_images": rng.integers(0, 256, shape, dtype=np.uint8),
        "train_labels": np.arange(n) % classes,
        "test_images": rng.integers(0, 256, shape, dtype=np.uint8),
        "test_labels": np.arange(n) % classes,
        "classnames": np.array([f"kind_{i}" for i in range(classes)]),
    }


def save(folder, name, arrays):
    np.savez(folder / f"{name}.npz", **arrays)
    return folder / f"{name}.npz"


def picture(path, seed, size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


@pytest.fixture
def split_folder(tmp_path):
    """train/ and test/ with two classes; one test image is also in train, under another file
    name."""
    source = tmp_path / "source"
    for i in range(6):
        picture(source / "train" / f"kind_{i % 2}" / f"{i}.png", i)
    for i in range(4):
        picture(source / "test" / f"kind_{i % 2}" / f"{i}.png", 100 + i)
    picture(source / "train" / "kind_0" / "copy.png", 100)
    return source


# reading


def test_load_gives_rgb_32_and_words(tmp_path):
    arrays = made()
    save(tmp_path, "mine", arrays)
    got = images.load("mine", tmp_path)
    assert np.array_equal(got.train_images, arrays["train_images"])
    assert got.test_labels.dtype == np.int64 and got.test_images.dtype == np.uint8
    assert (
        got.classnames == ["kind 0", "kind 1", "kind 2"]
        and got.templates == images.GENERIC_TEMPLATES
    )


def test_grey_28_is_padded_in_the_middle_not_rescaled(tmp_path):
    arrays = made(side=28, grey=True)
    save(tmp_path, "mine", arrays)
    got = images.load("mine", tmp_path).train_images
    assert got.shape == (12, 32, 32, 3)
    assert np.array_equal(
        got[:, 2:30, 2:30], np.repeat(arrays["train_images"][..., None], 3, axis=3)
    )
    assert not got[:, :2].any() and not got[:, :, 30:].any()


def test_omniglot_is_padded_with_its_white(tmp_path):
    save(tmp_path, "omniglot", made(side=28, grey=True))
    assert (images.load("omniglot", tmp_path).test_images[:, 0] == 255).all()


def test_train_images_as_jpeg(tmp_path):
    arrays = made()
    pieces = []
    for image in arrays.pop("train_images"):
        Image.fromarray(image).save(buffer := io.BytesIO(), "JPEG", quality=90, subsampling=0)
        pieces.append(buffer.getvalue())
    arrays["train_jpeg"] = np.frombuffer(b"".join(pieces), dtype=np.uint8)
    arrays["train_offsets"] = np.cumsum([0, *map(len, pieces)])
    save(tmp_path, "mine", arrays)
    got = images.load("mine", tmp_path).train_images
    assert np.array_equal(got[3], np.asarray(Image.open(io.BytesIO(pieces[3]))))
    arrays["train_offsets"][-1] += 5
    save(tmp_path, "mine", arrays)
    with pytest.raises(BvError, match="train_offsets do not fit train_jpeg"):
        images.load("mine", tmp_path)


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text and len(text) < 500
    return text


def test_missing_data_names_file_folder_and_mend(tmp_path):
    with pytest.raises(MissingData) as caught:
        images.load("cifar10", tmp_path)
    text = one_line(caught)
    assert "cifar10.npz" in text and str(tmp_path) in text
    assert "bv data prepare cifar10 --torchvision CIFAR10" in text
    with pytest.raises(MissingData, match="--from"):
        images.load("ucmerced", tmp_path / "nowhere")


def test_unknown_name_gets_the_nearest(tmp_path):
    with pytest.raises(BvError, match="unknown dataset 'cifar1O': did you mean 'cifar10'"):
        images.load("cifar1O", tmp_path)


def test_data_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    save(tmp_path, "mine", made())
    assert len(images.load("mine").train_labels) == 12
    monkeypatch.delenv("BVLIB_DATA")
    assert images.data_folder().name == "data"


BROKEN = {
    "lacks test_labels": lambda a: a.pop("test_labels"),
    "holds extra": lambda a: a.update(extra=np.zeros(2)),
    "labels reach from 0 to 3, outside 0..2": lambda a: a["test_labels"].__setitem__(0, 3),
    "labels reach from -1": lambda a: a["train_labels"].__setitem__(0, -1),
    "1 test images are also train images": lambda a: a["test_images"].__setitem__(
        4, a["train_images"][7]
    ),
    "not uint8": lambda a: a.update(train_images=a["train_images"] / 255),
    "labels are int64": lambda a: a.update(test_labels=a["test_labels"][:-1]),
    "more than 32 x 32": lambda a: a.update(made(side=40)),
    "classnames": lambda a: a.update(classnames=np.array(["one", "one", "two"])),
    "no npz of plain arrays": lambda a: a.update(
        classnames=np.array(["a", "b", "c"], dtype=object)
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_wrong_files_give_one_line(tmp_path, message):
    arrays = made()
    BROKEN[message](arrays)
    path = save(tmp_path, "mine", arrays)
    with pytest.raises(BvError) as caught:
        images.load("mine", tmp_path)
    text = one_line(caught)
    assert message in text and str(path) in text and "bv data prepare mine" in text


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty", "npy", "flipped"])
def test_damaged_files_give_one_line(tmp_path, damage):
    path = save(tmp_path, "mine", made())
    whole = bytearray(path.read_bytes())
    whole[5000] ^= 255
    half = whole[: len(whole) // 2]
    content = {"truncated": half, "foreign": b"hello " * 99, "empty": b"", "flipped": whole}
    if damage == "npy":
        np.save(tmp_path / "array.npy", np.zeros(3))
        path.write_bytes((tmp_path / "array.npy").read_bytes())
    else:
        path.write_bytes(content[damage])
    with pytest.raises(BvError, match="truncated or no npz"):
        images.load("mine", tmp_path)
    if damage != "flipped":  # a wrong pixel shows only when the images are read
        assert images.table(tmp_path).set_index("name").present["mine"] == "unreadable"


def test_reading_needs_no_torch():
    code = "import sys, bvlib.worlds.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# names


def test_every_entry_is_complete():
    for name, info in images.DATASETS.items():
        assert info.name == name and info.what and info.licence and info.citation
        assert min(info.train, info.test, info.classes) > 0 and len(info.sha256) == 64
        assert all(t.count("{}") == 1 for t in info.templates)
        assert len(info.words) in (0, info.classes) and len(set(info.words.values())) == len(
            info.words
        )


def test_words_by_name_by_number_and_tidied():
    mnist, gtsrb = images.DATASETS["mnist"], images.DATASETS["gtsrb"]
    assert mnist.read_names(list("0123456789"))[7] == "seven"
    assert (
        mnist.read_names([f"{d} - {w}" for d, w in enumerate(mnist.words.values())])[3] == "three"
    )
    assert gtsrb.read_names([f"{i:05d}" for i in range(43)])[14] == "red octagon with the word stop"
    assert gtsrb.read_names(["yield"]) == ["upside down red and white triangle, yield"]
    omniglot = images.DATASETS["omniglot"].read_names(
        ["Early_Aramaic character07", "Greek/character24"]
    )
    assert omniglot == ["Early Aramaic letter 7", "Greek letter 24"]
    mine = images.DatasetInfo("mine", "").read_names(["0", "red_fox", "Sea-Lion"])
    assert mine == ["0", "red fox", "Sea-Lion"]


def test_examples_in_docstrings():
    assert doctest.testmod(images).failed == 0


# the list


def test_table_says_what_is_here(tmp_path):
    save(tmp_path, "cifar10", made(classes=10))
    save(tmp_path, "mine", made())
    rows = images.table(tmp_path).set_index("name")
    assert list(rows.index) == images.names(tmp_path) == [*images.DATASETS, "mine"]
    assert rows.present["cifar10"] == "own preparation" and rows.train["cifar10"] == 12
    assert rows.present["gtsrb"] == "no" and rows.classes["gtsrb"] == 43
    assert rows.sha256["gtsrb"] == images.DATASETS["gtsrb"].sha256[:12]


def test_data_readme_and_registry_agree():
    text = (ROOT / "data" / "README.md").read_text()
    for info in images.DATASETS.values():
        row = next(line for line in text.splitlines() if line.startswith(f"| {info.name} |"))
        assert info.licence in row and f"{info.train:,}" in row and f"{info.test:,}" in row


# making


def test_prepare_from_split_folders(tmp_path, split_folder):
    said = []
    path = prepare.prepare("mine", split_folder, out=tmp_path, say=said.append)
    got = images.load("mine", tmp_path)
    assert path == tmp_path / "mine.npz" and got.classnames == ["kind 0", "kind 1"]
    assert len(got.train_labels) == 6 and len(got.test_labels) == 4, (
        "the copy of a test image leaves train"
    )
    assert any("1 train images that are also test images left out" in line for line in said)
    drawn = Image.open(split_folder / "test/kind_1/3.png")
    want = np.asarray(drawn.resize((32, 32), Image.Resampling.LANCZOS))
    row = [np.array_equal(image, want) for image in got.test_images].index(True)
    assert got.test_labels[row] == 1
    assert not list(tmp_path.glob(".mine*")), "no temporary file stays"


def test_prepare_is_deterministic(tmp_path, split_folder):
    hashes = {
        file_sha256(prepare.prepare("mine", split_folder, out=tmp_path / part, say=str))
        for part in ("a", "b", "c/d")
    }
    assert len(hashes) == 1


def test_prepare_splits_one_level_by_fifths(tmp_path):
    for i in range(20):
        picture(tmp_path / "source" / f"kind_{i % 2}" / f"{i:02d}.png", i, size=(28, 28), mode="L")
    said = []
    path = prepare.prepare("mine", tmp_path / "source", out=tmp_path, say=said.append)
    with np.load(path, allow_pickle=False) as archive:
        assert set(archive.files) == set(images.KEYS)
        assert archive["train_images"].shape == (16, 28, 28), (
            "small square grey images stay as they are"
        )
        assert np.bincount(archive["test_labels"]).tolist() == [2, 2]
        assert archive["train_labels"].dtype == np.int64 and archive["classnames"].dtype.kind == "U"
    assert any("a fifth of each class" in line for line in said)


def test_prepare_mixed_modes_and_sizes(tmp_path):
    for i in range(4):
        mode = "L" if i else "RGB"
        picture(tmp_path / "s" / f"kind_{i % 2}" / f"{i}.png", i, size=(20 + i, 20 + i), mode=mode)
    got = images.load("mine", prepare.prepare("mine", tmp_path / "s", out=tmp_path, say=str).parent)
    assert got.train_images.shape == (2, 32, 32, 3) and got.test_images.shape == (2, 32, 32, 3)


def test_prepare_limits_images_a_class_to_those_of_the_reference(
    tmp_path, split_folder, monkeypatch
):
    known = images.DatasetInfo("mine", "", train=4, test=2, classes=2)
    monkeypatch.setitem(images.DATASETS, "mine", known)
    prepare.prepare("mine", split_folder, out=tmp_path, say=str)
    got = images.load("mine", tmp_path)
    assert np.bincount(got.train_labels).tolist() == [2, 2]
    assert np.bincount(got.test_labels).tolist() == [1, 1]


def test_prepare_refuses_in_one_line(tmp_path, split_folder):
    def refuse(match, *args, **options):
        with pytest.raises(BvError, match=match) as caught:
            prepare.prepare(*args, **{"out": tmp_path, "say": str} | options)
        one_line(caught)

    refuse("no folder", "mine", tmp_path / "nowhere")
    refuse("cannot name a dataset", "../mine", split_folder)
    refuse("give a folder", "mine")
    refuse("give a folder", "mine", split_folder, "CIFAR10")
    refuse("two or more folders CLASS/", "mine", split_folder / "train" / "kind_0")
    (tmp_path / "file").write_text("")
    refuse("cannot write", "mine", split_folder, out=tmp_path / "file")
    picture(split_folder / "train" / "lone" / "1.png", 1)
    refuse("class 'lone' is not in both", "mine", split_folder)
    (split_folder / "test" / "lone").mkdir()
    (split_folder / "test" / "lone" / "1.png").write_bytes(b"no image")
    refuse("no readable image", "mine", split_folder)
    assert not (tmp_path / "mine.npz").exists()


class Stub:
    """Stands for a torchvision class: 3 classes, or `classes` unknown for `Nameless`."""

    classes = ("0 - zero", "1 - one", "2 - two")

    def __init__(self, root, train=True, download=False):
        assert download and Path(root).is_dir()
        self.seed = 0 if train else 50

    def __len__(self):
        return 9

    def __getitem__(self, index):
        rng = np.random.default_rng(self.seed + index)
        return Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)), index % 3


class Textures(Stub):
    """As `Stub`, with a `split`, and more classes than the known set."""

    classes = (*images.DATASETS["dtd10"].words, "dotted", "fibrous")

    def __init__(self, root, split="train", download=False):
        super().__init__(root, split == "train", download)

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return super().__getitem__(index)[0], index % 12


class Nameless(Stub):
    classes = None


class Broken(Stub):
    def __init__(self, root, train=True, download=False):
        raise RuntimeError("no route\nto host")


def test_prepare_from_torchvision(tmp_path, monkeypatch):
    theirs = [Stub, Textures, Nameless, Broken]
    for each in theirs:
        monkeypatch.setattr(datasets, each.__name__, each, raising=False)
    monkeypatch.setattr(datasets, "__all__", [*(each.__name__ for each in theirs), "VisionDataset"])

    def run(name, kind):
        prepare.prepare(name, torchvision=kind, out=tmp_path, say=str)
        return images.load(name, tmp_path)

    got = run("mine", "Stub")
    assert len(got.train_labels) == 9 and got.train_images.shape == (9, 32, 32, 3)
    assert run("nameless", "Nameless").classnames == ["0", "1", "2"]
    got = run("dtd10", "Textures")
    assert got.classnames == list(images.DATASETS["dtd10"].words) and len(got.test_labels) == 20
    with pytest.raises(BvError, match="did you mean 'Stub'"):
        run("other", "Stbu")
    with pytest.raises(BvError, match="could not bring Broken .no route to host.") as caught:
        run("other", "Broken")
    one_line(caught)


def test_prepare_from_torchvision_itself(tmp_path):
    pytest.importorskip("bvlib.core._torchvision")
    with pytest.raises(
        BvError, match="unknown torchvision dataset 'CIFAR1O': did you mean 'CIFAR10'"
    ):
        prepare.prepare("mine", torchvision="CIFAR1O", out=tmp_path, say=str)


# the real files, where they are


PLACES = (Path(os.environ.get("BVLIB_DATA") or "nowhere"), ROOT.parent / "shared/data/real32")
REAL = next((folder for folder in PLACES if (folder / "cifar10.npz").is_file()), None)
here = pytest.mark.skipif(
    REAL is None, reason="no real images: BVLIB_DATA names no folder with some"
)


@here
def test_kinds_are_of_classes_that_are_there():
    if not (REAL / "tinyimagenet.npz").is_file():
        pytest.skip("no tinyimagenet.npz in BVLIB_DATA")
    with np.load(REAL / "tinyimagenet.npz", allow_pickle=False) as file:
        assert set(KIND_WORDS) <= set(file["classnames"].tolist())


SLOW = [pytest.param("tinyimagenet", marks=pytest.mark.slow)]


@here
@pytest.mark.parametrize("name", [n for n in images.DATASETS if n != "tinyimagenet"] + SLOW)
def test_real_files_load(name):
    info = images.DATASETS[name]
    if not (REAL / f"{name}.npz").is_file():
        pytest.skip(f"no {name}.npz in BVLIB_DATA")
    got = images.load(name, REAL)
    assert got.train_images.shape[1:] == got.test_images.shape[1:] == (32, 32, 3)
    assert (
        set(got.train_labels.tolist())
        == set(got.test_labels.tolist())
        == set(range(len(got.classnames)))
    )
    assert len(set(got.classnames)) == len(got.classnames) and all(
        t.isascii() for t in got.classnames
    )
    if file_sha256(REAL / f"{name}.npz") == info.sha256:
        assert (info.train, info.test, info.classes) == tuple(
            map(len, (got.train_labels, got.test_labels, got.classnames))
        )
        assert not info.words or got.classnames == list(info.words.values()), (
            "every name is found, in order"
        )
