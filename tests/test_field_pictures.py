"""Cases from the field about folders of images, names and words: each gives the right value or one
line that refuses it."""

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import one_line
from PIL import Image

from bvlib.cli import main
from bvlib.worlds import images, prepare, tasks

# Folders of images


@pytest.fixture
def folder(tmp_path):
    """A maker of folders of pictures: {"train/cat": 6} are six of class cat below train."""

    def make(content):
        drawn = np.random.default_rng(0)
        for where, count in content.items():
            (tmp_path / "source" / where).mkdir(parents=True)
            for number in range(count):
                pixels = drawn.integers(256, size=(8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "source" / where / f"{number}.png")
        return tmp_path / "source"

    return make


def prepared(source, out, name="mine", **how):
    said = []
    path = prepare.prepare(name, source, out=out, say=said.append, **how)
    return images.load(path.stem, path.parent), said


@pytest.mark.parametrize(
    "train, test",
    [("train", "valid"), ("Train", "Test"), ("training", "testing"), ("TRAIN", "validation")],
)
def test_split_folders_are_known_by_any_of_their_names(folder, tmp_path, train, test):
    content = {
        f"{part}/{name}": n for part, n in ((train, 6), (test, 3)) for name in ("cat", "dog")
    }
    made, _ = prepared(folder(content), tmp_path)
    assert made.classnames == ["cat", "dog"]
    assert (len(made.train_labels), len(made.test_labels)) == (12, 6)


def test_a_third_split_is_said_and_left_out(folder, tmp_path):
    content = {f"{part}/{name}": 4 for part in ("train", "val", "test") for name in ("cat", "dog")}
    made, said = prepared(folder(content), tmp_path)
    assert len(made.test_labels) == 8 and any("val" in line and "left out" in line for line in said)


@pytest.mark.parametrize("content", [{"photo/cat": 4, "photo/dog": 4, "sketch/cat": 4}])
def test_a_deeper_tree_is_not_taken_for_classes(folder, tmp_path, content):
    with one_line("photo", "folders in it"):
        prepared(folder(content), tmp_path)


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "@eaDir", "__MACOSX"])
def test_hidden_folders_hold_no_images(folder, tmp_path, hidden):
    source = folder({"cat": 10, "dog": 10, f"cat/{hidden}": 10, hidden: 2})
    made, _ = prepared(source, tmp_path)
    assert len(made.train_labels) + len(made.test_labels) == 20 and len(made.classnames) == 2


def test_a_class_without_readable_images_is_refused_and_skipped_files_are_said(folder, tmp_path):
    source = folder({"cat": 10, "dog": 10})
    (source / "cat" / "notes.txt").touch()
    assert any("1 .txt" in line for line in prepared(source, tmp_path)[1])
    (source / "owl").mkdir()
    (source / "owl" / "a.heic").touch()
    with one_line("owl", "no image"):
        prepared(source, tmp_path, "other")


def test_a_photo_is_turned_as_its_camera_says(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "source" / name).mkdir(parents=True)
    pixels = np.zeros((8, 8, 3), np.uint8)
    for number, name in enumerate(("cat", "cat", "dog", "dog")):
        pixels[0] = 255 - number  # the top row is bright
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise by 90 degrees
        path = tmp_path / "source" / name / f"{number}.png"
        Image.fromarray(pixels).save(path, exif=exif)
    made, _ = prepared(tmp_path / "source", tmp_path)
    shown = made.train_images[0][12:20, 12:20, 0]  # 8 px in the middle of 32
    assert (shown[:, -1] > 200).all() and (shown[:, 0] == 0).all()


def test_pictures_of_16_bits_are_refused(folder, tmp_path):
    source = folder({"cat": 4, "dog": 4})
    deep = np.full((8, 8), 2000, np.uint16)
    Image.fromarray(deep).save(source / "cat" / "deep.png")
    with one_line("deep.png", "8 bits"):
        prepared(source, tmp_path)


def test_equal_images_under_two_classes_are_said(folder, tmp_path):
    source = folder({"cat": 6, "dog": 6})
    (source / "dog" / "same.png").write_bytes((source / "cat" / "0.png").read_bytes())
    assert any("two classes" in line for line in prepared(source, tmp_path)[1])


def test_numbered_folders_are_ordered_as_numbers(folder, tmp_path):
    made, _ = prepared(folder({str(n): 5 for n in range(12)}), tmp_path)
    assert made.classnames == [str(n) for n in range(12)]


@pytest.mark.parametrize("name", ["digits", "shapes", "handwritten", "signs"])
def test_the_name_of_a_toy_task_is_taken(folder, tmp_path, name):
    with one_line(f"'{name}'", "taken"):
        prepared(folder({"cat": 4, "dog": 4}), tmp_path, name)


def test_a_small_set_keeps_most_images_for_training(folder, tmp_path, monkeypatch, caplog):
    prepared(folder({"train/cat": 33, "train/dog": 33, "test/cat": 5, "test/dog": 5}), tmp_path)
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    task = tasks.load("mine", {"train": 100, "dev": 64, "test": 100})
    assert (len(task.train), len(task.dev), len(task.test)) == (50, 16, 10)
    assert "16 dev images" in caplog.text


def test_words_and_prompts_of_an_own_set(folder, tmp_path, monkeypatch):
    source = folder({"Sample001": 6, "Sample002": 6})
    told = "words: {Sample001: red fox}\nprompts: ['a drawing of a {}.']\nlicence: CC0\n"
    (source / "words.yaml").write_text(told)
    prepared(source, tmp_path)
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    task = tasks.load("mine", {"train": 100, "dev": 2, "test": 100})
    assert task.classnames == ("red fox", "Sample002") and task.licence == "CC0"
    assert task.prompts == ("a drawing of a {}.",)


@pytest.mark.parametrize(
    "told, words",
    [
        ("word: {}", "unknown key of words.yaml 'word': did you mean 'words'?"),
        ("words: [fox]", "words are `class folder: words`"),
        ("prompts: a photo of a {}", "a list of texts with one {} each"),
        ("prompts: [a photo]", "a list of texts with one {} each"),
        ("words: {Sample003: fox}", "no class folder 'Sample003'"),
        ("[1]", "cannot read"),
        ("words: {", "cannot read"),
    ],
)
def test_words_that_do_not_fit(folder, tmp_path, told, words):
    source = folder({"Sample001": 6, "Sample002": 6})
    (source / "words.yaml").write_text(told)
    with one_line(words):
        prepared(source, tmp_path)


def test_a_look_at_a_set_is_a_picture(folder, tmp_path, monkeypatch):
    prepared(folder({"cat": 20, "dog": 20}), tmp_path)
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(main, ["data", "look", "mine"])
    assert found.exit_code == 0 and "2 classes" in found.output, found.output
    assert Image.open(tmp_path / "mine.png").width > 500


# Words


@pytest.mark.parametrize("names", [("hot dog", "hot_dog"), ("A", "a"), ("cat", "cat ")])
def test_classes_that_the_tokenizer_cannot_tell_apart(encoder, names):
    if encoder.tokenizer([names[0]]).tolist() == encoder.tokenizer([names[1]]).tolist():
        with one_line(*map(repr, names), "same tokens"):
            encoder.head(names, ["a photo of a {}."])
    else:
        assert len(encoder.head(names, ["a photo of a {}."])) == 2


def test_prompts_that_may_be_cut_are_warned_of(encoder, caplog):
    encoder.head(["a " * 60 + "cat", "dog"], ["{}", "a {}"])
    assert "2 of 4 prompts" in caplog.text


def test_class_folders_in_the_order_of_text_are_known_by_their_number():
    """Kaggle's GTSRB: folders 0, 1, 10, 11, … (vision#714)."""
    gtsrb = images.DATASETS["gtsrb"]
    words, names = list(gtsrb.words.values()), sorted(map(str, range(43)))
    assert gtsrb.read_names(names) == [words[int(name)] for name in names]
    assert gtsrb.read_names([f"{i:05d}" for i in range(43)]) == words
    assert gtsrb.read_names(["0", "2"]) == ["0", "2"]  # not all classes: which are they?
