"""Cases from the field about folders of images, and their neighbours: each gives the right value or
one line that refuses it, and what is left out or decided is said."""

import shutil

import numpy as np
import pytest
from helpers import one_line, photos, prepared
from PIL import Image

from bvlib.worlds import tasks

TWO = {"cat": 4, "dog": 4}
GREY = np.full((8, 8), 100, np.uint8)


def split(*parts, count=4):
    return {f"{part}/{name}": count for part in parts for name in TWO}


@pytest.fixture
def make(tmp_path):
    """A maker of a set, from content of a folder, after ``change(folder)``: (set, lines said)."""

    def made(content, change=lambda source: None, name="mine", **how):
        shutil.rmtree(tmp_path / "source", ignore_errors=True)
        source = photos(tmp_path / "source", content)
        change(source)
        made, said = prepared(source, tmp_path, name, **how)
        return made, "\n".join(said)

    return made


# Folders

PARTS = ("train valid", "Train Test", "training testing", "TRAIN validation", "train dev")


@pytest.mark.parametrize("parts", [*PARTS, "Final_Training Final_Test", "Training eval"])
def test_split_folders_are_known_by_any_of_their_names(make, parts):
    train, test = parts.split()
    made, _ = make(split(train, count=6) | split(test, count=3))
    assert made.classnames == ["cat", "dog"]
    assert (len(made.train_labels), len(made.test_labels)) == (12, 6)


@pytest.mark.parametrize("other", ["val", "Train", "unlabelled", "train2"])
def test_a_third_split_is_said_and_left_out(make, other):
    made, said = make(split("train", "test", other))
    left = "train" if other == "Train" else other  # of both, the first in the order of names
    assert len(made.test_labels) == 8 and f"{left}/ is left out" in said


DEEPER = {
    "photo": {"photo/cat": 4, "photo/dog": 4, "sketch/cat": 4},  # domains, as in PACS
    "images": split("train/images", "test/images"),
    "archive": split("archive/train", "archive/test"),
    "train": split("train"),
    "Images": {"Final_Training/Images/0": 4, "Final_Training/Images/1": 4, "Final_Test/Images": 4},
    "masks": {**TWO, "cat/masks": 4},
}


@pytest.mark.parametrize("culprit", DEEPER)
def test_a_deeper_tree_is_not_taken_for_classes(make, culprit):
    with one_line(culprit, "folders in it"):
        make(DEEPER[culprit])


@pytest.mark.parametrize("to", ["../dog", ".."])
def test_a_link_to_a_folder_within_a_class_is_not_passed_over(make, to):
    with one_line("'cat' has folders in it ('more')"):
        make(TWO, lambda source: (source / "cat" / "more").symlink_to(to))


@pytest.mark.parametrize("content", [split("train") | {"test": 3}, {"": 3}])
def test_pictures_without_class_folders_are_no_split(make, content):
    with one_line("3 images in", "no class folder", "two or more folders CLASS/"):
        make(content)


def test_pictures_beside_the_class_folders_are_counted(make):
    def change(source):
        for name in ("loose.PNG", ".hidden.png", "notes.txt"):
            shutil.copy(source / "cat" / "0.png", source / name)

    assert "1 images in" in make(TWO, change)[1]


@pytest.mark.parametrize(
    "more, culprit, lacks",
    [({"train/owl": 2}, "owl", "test"), ({"test/owl": 2}, "owl", "train"), ({}, "Cat", "test")],
)
def test_a_class_in_one_split_only_is_refused_with_the_split_that_lacks_it(
    make, more, culprit, lacks
):
    first = split("train") if more else {"train/Cat": 4, "train/dog": 4}
    with one_line(f"{culprit!r} is not in both", f"{lacks}/ has none"):
        make(first | split("test") | more)


LEFT = (".ipynb_checkpoints", "@eaDir", "__MACOSX", "$RECYCLE.BIN", "#recycle", "lost+found")


@pytest.mark.parametrize("hidden", LEFT)
def test_hidden_folders_hold_no_images(make, hidden):
    made, said = make({"cat": 10, "dog": 10, f"cat/{hidden}": 10, hidden: 2})
    assert len(made.train_labels) + len(made.test_labels) == 20 and made.classnames == [*TWO]
    assert f"left out: {hidden}" in said


def test_a_sign_alone_is_a_class(make):
    assert make({"#": 4, "@": 4, "$": 4})[0].classnames == ["#", "$", "@"]


@pytest.mark.parametrize("name, has", [("a.HEIC", " (1 .heic)"), ("note", " (1 plain)"), ("", "")])
def test_a_class_without_images_is_refused_with_what_it_has(make, name, has):
    with one_line("'owl' in", f"no image{has}:"):
        make({**TWO, "owl": 0}, lambda source: name and (source / "owl" / name).touch())


def test_skipped_files_are_said_by_kind(make):
    def change(source):
        for name in ("Thumbs.db", "a.txt", "b.txt", "._0.png", *(f"x.{n}" for n in range(30))):
            (source / "cat" / name).touch()

    listed = make(TWO, change)[1].split("left out: ")[1].splitlines()[0].split(", ")
    assert (listed[0], len(listed), listed[-1]) == ("2 .txt", 6, "...")


def test_jfif_is_jpeg(make):
    def change(source):
        for path in (source / "owl").iterdir():
            Image.open(path).convert("RGB").save(path.with_suffix(".jfif"), "JPEG")
            path.unlink()

    assert make({**TWO, "owl": 4}, change)[0].classnames == ["cat", "dog", "owl"]


# Pictures


@pytest.mark.parametrize(
    "ending, way, side", [(e, 6, -1) for e in ("png", "jpg", "webp", "tif")] + [("jpg", 8, 0)]
)
def test_a_photo_is_turned_as_its_camera_says(make, ending, way, side):
    def change(source):
        exif, pixels = Image.Exif(), np.zeros((8, 8, 3), np.uint8)
        exif[0x0112], pixels[0] = way, 255  # the top row is bright
        Image.fromarray(pixels).save(source / "test/cat" / f"0.{ending}", exif=exif, quality=100)

    made, _ = make(split("train") | {"test/cat": 0, "test/dog": 1}, change)
    shown = made.test_images[made.test_labels == 0][0, 12:20, 12:20, 0]  # the middle of 32 px
    assert (shown[:, side] > 250).all() and (shown[:, -1 - side] < 60).all()


DEEP = {
    "a.png": lambda path: Image.fromarray(GREY.astype(np.uint16) * 20).save(path),
    "a.tif": lambda path: Image.fromarray(GREY / np.float32(255)).save(path),
    "b.tif": lambda path: Image.fromarray(GREY.astype(np.int32)).save(path),
    "a.pgm": lambda path: path.write_bytes(b"P5 8 8 65535 " + GREY.astype(">u2").tobytes()),
}


@pytest.mark.parametrize("name", DEEP)
def test_pictures_of_more_than_8_bits_are_refused(make, name):
    with one_line(name, "8 bits"):
        make(TWO, lambda source: DEEP[name](source / "cat" / name))


def dark(mode):
    return Image.fromarray(GREY).convert("RGB").convert(mode)


CLEAR = Image.fromarray(np.stack([GREY, GREY * 0], -1), "LA")
SHOWN = {  # the file of a picture of grey 100, and how; what it shows; what is said
    "x.png": (dark("RGBA"), {}, 100, ""),
    "x.jpg": (dark("CMYK"), {}, 100, ""),
    "x.tiff": (dark("P"), {}, 100, ""),
    "x.bmp": (dark("1").point(lambda v: 255), {}, 255, ""),
    "y.png": (CLEAR, {}, 255, "become white: 1"),
    "y.tif": (CLEAR.convert("RGBA"), {}, 255, "become white: 1"),
    "z.png": (dark("P"), {"transparency": dark("P").getpixel((0, 0))}, 255, "become white: 1"),
    "x.gif": (
        dark("L"),
        {"append_images": [dark("L").point(lambda v: 9)]},
        100,
        "first is taken: 1",
    ),
    "x.webp": (dark("RGB"), {"append_images": [CLEAR], "lossless": True}, 100, "first is taken: 1"),
    "x.tif": (dark("RGB"), {"append_images": [dark("L")]}, 100, "first is taken: 1"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_a_picture_shows_and_what_is_decided(make, name):
    picture, how, grey, words = SHOWN[name]
    how = how | ({"save_all": True} if "append_images" in how else {})
    content = split("train") | {"test/cat": 0, "test/dog": 1}
    made, said = make(content, lambda source: picture.save(source / "test/cat" / name, **how))
    shown = made.test_images[made.test_labels == 0][0, 12:20, 12:20]
    assert np.abs(shown.astype(int) - grey).max() <= 2
    assert words in said and ("images with" in said or "images of several" in said) == bool(words)
    assert "images of one colour all over, on which nothing is to be seen: 1" in said


BROKEN = {
    "empty.png": b"",
    "page.jpg": b"<!DOCTYPE html>",
    "pointer.png": b"version https://git-lfs.github.com/spec/v1",
}


@pytest.mark.parametrize("name", [*BROKEN, "gone.png", "cut.png", "huge.png"])
def test_a_file_that_cannot_be_read_is_named(make, name):
    def change(source):
        path, whole = source / "cat" / name, (source / "cat" / "0.png").read_bytes()
        if name == "gone.png":
            path.symlink_to("nowhere.png")
        elif name == "huge.png":
            Image.new("1", (14000, 14000)).save(path)
        else:
            path.write_bytes(BROKEN.get(name, whole[:60]))

    with one_line(name, "more pixels" if name == "huge.png" else "no readable image"):
        make(TWO, change)


SAME = {
    "a copy": lambda source: shutil.copy(source / "train/cat/0.png", source / "train/dog/x.png"),
    "test": lambda source: shutil.copy(source / "train/cat/0.png", source / "test/dog/x.png"),
    "bmp": lambda source: Image.open(source / "train/cat/0.png").save(source / "train/dog/x.bmp"),
}


@pytest.mark.parametrize("way", SAME)
def test_equal_images_under_two_classes_are_counted(make, way):
    assert (
        "two classes or more, of which nothing can be learnt: 1"
        in make(split("train", "test"), SAME[way])[1]
    )


def test_a_linked_class_is_the_same_images_twice(make):
    said = make(TWO, lambda source: (source / "owl").symlink_to("dog"))[1]
    assert "nothing can be learnt: 4" in said


# Small sets


def sizes(dev):
    return {"train": 100, "dev": dev, "test": 100}


@pytest.mark.parametrize("each, train, dev", [(33, 50, 16), (2, 3, 1)])
def test_a_small_set_keeps_most_images_for_training(
    make, tmp_path, monkeypatch, caplog, each, train, dev
):
    make(split("train", count=each) | split("test", count=5))
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    task = tasks.load("mine", sizes(64))
    assert (len(task.train), len(task.dev), len(task.test)) == (train, dev, 10)
    assert f"{dev} dev images, a quarter of its {2 * each}" in caplog.text


def test_a_set_too_small_for_dev_images_says_so(make, tmp_path, monkeypatch):
    make({"train/cat": 2, "train/dog": 1} | split("test"))
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    assert len(tasks.load("mine", sizes(0)).train) == 3
    with one_line("mine has 3 train images", "4 or more"):
        tasks.load("mine", sizes(1))


def test_a_class_whose_only_train_image_became_a_dev_image_is_warned_of(
    make, tmp_path, monkeypatch, caplog
):
    content = {f"{part}/{n}": 1 for part in ("train", "test") for n in range(8)}
    make(content)
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    task = tasks.load("mine", sizes(2))
    lone = min(set(range(8)) - set(task.train.labels.tolist()))
    assert f"no train image is left of class '{lone}' and 1 more" in caplog.text


def test_a_class_of_one_image_is_refused_without_a_test_split(make):
    with one_line("'cat' has no train image left"):
        make({"cat": 1, "dog": 4})


def test_what_was_understood_is_said(tmp_path):
    content = {"train/cat": 6, "train/red fox": 4, "test/cat": 2, "test/red fox": 2}
    source = photos(tmp_path / "source", content)
    Image.new("RGB", (30, 12), "red").save(source / "train" / "cat" / "wide.png")
    _, said = prepared(source, tmp_path)
    assert "classes (train + test): cat 7 + 2, red fox 4 + 2" in said
    assert (
        "sizes as they are: 8 × 8 to 30 × 12 px" in said and "sizes as they are: 8 × 8 px" in said
    )
