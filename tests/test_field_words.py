"""Cases from the field about names of sets and classes, words and prompts, and sets made anew,
with their neighbours."""

import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import one_line, photos, prepared
from PIL import Image

from bvlib.cli import main
from bvlib.run import records
from bvlib.worlds import images, tasks

TWO = {"cat": 4, "dog": 4}


@pytest.fixture
def told(tmp_path):
    """A set of these classes, and what `words.yaml` tells of them: the words, as they are read."""

    def made(content, words="", name="mine", file="words.yaml"):
        source = tmp_path / name / "source"
        shutil.rmtree(source, ignore_errors=True)
        photos(source, content)
        if words:
            (source / file).write_text(words, encoding="utf-8")
        return prepared(source, tmp_path, name)[0].classnames

    return made


# Names of sets


@pytest.mark.parametrize("name", ["digits", "shapes", "handwritten", "signs", "Digits", "colours"])
def test_the_name_of_a_toy_task_is_taken(told, name):
    with one_line(f"'{name}'", "taken", "use another"):
        told(TWO, name=name)


@pytest.mark.parametrize("name, known", [("MNIST", "mnist"), ("fashion-mnist", "fashion_mnist")])
def test_another_spelling_of_a_known_set_is_no_set_of_ones_own(told, name, known):
    with one_line(f"'{name}' is taken", f"call that set '{known}'"):
        told(TWO, name=name)


@pytest.mark.parametrize("name", ["1", "1.5", "true", "No", "null", "a b", "-a", "a/b", ""])
def test_names_that_a_parameter_cannot_hold(name, tmp_path):
    with one_line("cannot name a dataset"):
        prepared(tmp_path, tmp_path, name)


@pytest.mark.parametrize("name", ["mine.v2", "20news", "café", "tiny-digits"])
def test_other_names_are_free(told, name):
    assert told(TWO, "words: {cat: tom}", name) == ["tom", "dog"]


def test_an_unknown_set_says_where_sets_are_read_from(tmp_path, monkeypatch):
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    with one_line("unknown task 'mine'", str(tmp_path)):
        tasks.load("mine", {"train": 1, "dev": 1, "test": 1})


# Sets made anew


def test_a_set_that_is_there_is_replaced_only_when_asked(tmp_path):
    first, second = (photos(tmp_path / n, {n: 4, "dog": 4}) for n in ("cat", "owl"))
    (first / "words.yaml").write_text("words: {dog: hound}")
    prepared(first, tmp_path)
    with one_line("mine.npz is there", "--replace"):
        prepared(second, tmp_path)
    assert images.load("mine", tmp_path).classnames == ["cat", "hound"]
    made, _ = prepared(second, tmp_path, replace=True)
    assert made.classnames == ["dog", "owl"]  # nor do words of the first set stay


def test_replace_at_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    call = ["data", "prepare", "mine", "--from", str(photos(tmp_path / "source", TWO))]
    codes = [CliRunner().invoke(main, call + more).exit_code for more in ([], [], ["--replace"])]
    assert codes == [0, 2, 0]
    assert "without --paper" in CliRunner().invoke(main, [*call, "--replace", "--paper"]).output


@pytest.mark.parametrize("place", ["absolute", "home", "link"])
@pytest.mark.parametrize("change", ["images", "words", "none"])
def test_a_set_made_anew_makes_a_run_stale(tmp_path, monkeypatch, place, change):
    source = photos(tmp_path / "a", TWO)
    (tmp_path / "sets").mkdir()
    (tmp_path / "link").symlink_to("sets")
    home = f"~/{os.path.relpath(tmp_path / 'sets', Path.home())}"
    places = {"absolute": tmp_path / "sets", "home": home, "link": tmp_path / "link"}
    monkeypatch.setenv("BVLIB_DATA", str(places[place]))
    prepared(source, None)
    job = records.jobs(["00"], "smoke", 0, {"tasks": ["mine"], "adversary": "mine"})[0]
    record = {"parts": records.fingerprint(job), "recipes": []}
    if change == "images":
        prepared(photos(tmp_path / "b", {"cat": 5, "dog": 4}), None, replace=True)
    elif change == "words":
        (tmp_path / "sets" / "mine.yaml").write_text("words: {cat: tom}")
    assert ("data" in records.why(record, records.fingerprint(job), job)) == (change != "none")


# Classes of a known set

MNIST = {str(n): 5 for n in range(10)}


@pytest.mark.parametrize("name, there", [("mnist", 9), ("gtsrb", 42), ("gtsrb", 44)])
def test_a_known_set_has_its_number_of_classes(told, name, there):
    with one_line(f"{name} has", f"here are {there}"):
        told({f"{n:05d}" if name == "gtsrb" else str(n): 2 for n in range(there)}, name=name)


def test_a_known_set_has_its_classes(told):
    with one_line("mnist has 10 classes (0, 1, 2, ...), here are 10 (a, b, c, ...)"):
        told(dict.fromkeys("abcdefghij", 5), name="mnist")
    words = [*images.DATASETS["mnist"].words.values()]
    assert sorted(told(dict.fromkeys(words, 5), name="mnist")) == sorted(words)


def test_words_and_prompts_of_a_known_set_are_its_own(told):
    with one_line("mnist has words and prompts", "name a new set"):
        told(MNIST, "words: {'0': nil}", "mnist")


def test_numbered_folders_are_ordered_as_numbers(told):
    assert told({str(n): 5 for n in range(12)}) == [str(n) for n in range(12)]
    assert told({"10": 4, "09": 4, "a": 4, "1": 4}, name="other") == ["1", "09", "10", "a"]


def test_class_folders_in_the_order_of_text_are_known_by_their_number():
    """Kaggle's GTSRB: folders 0, 1, 10, 11, … (vision#714)."""
    gtsrb = images.DATASETS["gtsrb"]
    words, names = list(gtsrb.words.values()), sorted(map(str, range(43)))
    assert gtsrb.read_names(names) == [words[int(name)] for name in names]
    assert gtsrb.read_names([f"{i:05d}" for i in range(43)]) == words
    assert gtsrb.read_names(["0", "2"]) == ["0", "2"]  # not all classes: which are they?


# Words of one's own


def test_words_and_prompts_of_an_own_set(told, tmp_path, monkeypatch):
    words = "words: {Sample001: red fox}\nprompts: ['a drawing of a {}.']\nlicence: CC0\n"
    told({"Sample001": 6, "Sample002": 6}, words)
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    task = tasks.load("mine", {"train": 100, "dev": 2, "test": 100})
    assert task.classnames == ("red fox", "Sample002") and task.licence == "CC0"
    assert task.prompts == ("a drawing of a {}.",)


@pytest.mark.parametrize(
    "content, words, read",
    [
        ({"0": 4, "1": 4}, "words: {'1': b, '0': a}", ["a", "b"]),
        ({"猫": 4, "犬": 4}, "words: {猫: cat}", ["犬", "cat"]),
        ({"C": 4, "C#": 4}, "words: {C: see}", ["see", "C#"]),
        ({"कमल": 4, "गुलाब": 4}, "", ["कमल", "गुलाब"]),
        ({"a {x}": 4, "b.c, d": 4}, "words: {}", ["a {x}", "b.c, d"]),
        (TWO, "\ufeffwords: {cat: tom}", ["tom", "dog"]),
    ],
)
def test_words_stand_for_exactly_the_folders_that_they_name(told, content, words, read):
    assert told(content, words) == read


@pytest.mark.parametrize(
    "words, refusal",
    [
        ("word: {}", "unknown key of words.yaml 'word': did you mean 'words'?"),
        ("words: [fox]", "words are `class folder: words`"),
        ("prompts: a photo of a {}", "a list of texts with one {} each"),
        ("prompts: [a photo]", "a list of texts with one {} each"),
        ("prompts: ['{} {x}']", "a list of texts with one {} each"),
        ("prompts: ['a {} }']", "a list of texts with one {} each"),
        ("words: {Sample003: fox}", "no class folder 'Sample003'"),
        ("words: {Sample001: }", "words and licence are texts, got None"),
        ("words: {Sample001: no}", "words and licence are texts, got False"),
        ("words: {Sample001: [a, b]}", "words and licence are texts, got ['a', 'b']"),
        ("words: {Sample001: ''}", "words and licence are texts, got ''"),
        ("words: {010: fox}", "words and licence are texts, got 8"),
        ("licence: 4.0", "words and licence are texts, got 4.0"),
        ("words: {Sample001: sample002}", "both read as 'Sample002'"),
        ("[1]", "cannot read"),
        ("words: {", "cannot read"),
    ],
)
def test_words_that_do_not_fit(told, words, refusal):
    with one_line(refusal):
        told({"Sample001": 6, "Sample002": 6}, words)


@pytest.mark.parametrize("file", ["words.yml", "Words.yaml", "words.txt"])
def test_a_file_of_words_under_another_name_is_not_passed_over(told, file):
    with one_line(file, "words.yaml"):
        told(TWO, "words: {cat: tom}", file=file)


@pytest.mark.parametrize(
    "names",
    [
        ("Cat", "cat"),
        ("hot dog", "hot_dog"),
        ("a b", "a\u00a0b"),
        ("ﬁsh", "fish"),
        ("é", "e\u0301"),
    ],
)
def test_folders_that_are_read_as_the_same_words(told, names):
    with one_line("both read as", "words.yaml"):
        told(dict.fromkeys(names, 4))


def test_a_look_at_a_set_is_a_picture(told, tmp_path, monkeypatch):
    told({"cat": 20, "dog": 20})
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(main, ["data", "look", "mine"])
    assert found.exit_code == 0 and "2 classes" in found.output, found.output
    assert Image.open(tmp_path / "mine.png").width > 500


# Words of a model

LONG = "very " * 40
SAME = [("A", "a"), ("cat", "cat "), ("dog", "dog"), ("é", unicodedata.normalize("NFD", "é"))]


@pytest.mark.parametrize("names", [*SAME, ("ﬁsh", "fish"), (f"{LONG}red", f"{LONG}blue")])
def test_classes_that_the_tokenizer_cannot_tell_apart(encoder, names):
    with one_line(*(repr(name[:60]) for name in names), "same tokens"):
        encoder.head(names, ["a photo of a {}."])


@pytest.mark.parametrize(
    "names", [("hot dog", "hot_dog"), ("कमल", "कमला"), ("C++", "C#"), ("猫", "犬")]
)
def test_classes_that_differ_in_signs_get_heads_that_differ(encoder, names):
    left, right = encoder.head(names, ["a photo of a {}."])
    assert float(left @ right) < 0.9999


@pytest.mark.parametrize(
    "names, prompts, cut",
    [
        (["a " * 60 + "cat", "dog"], ["{}", "a {}"], "2 of 4 prompts"),
        (images.DATASETS["gtsrb"].words.values(), images.DATASETS["gtsrb"].templates, "28 of 129"),
        (["कमल " * 9, "गुलाब"], ["a {}"], "1 of 2 prompts"),
        (["cat", "dog"], ["a " * 40 + "{}", "a {}"], ""),
    ],
)
def test_prompts_that_may_be_cut_are_warned_of(encoder, caplog, names, prompts, cut):
    if not cut:  # where the prompt itself is too long, all classes are read as the same
        with one_line("same tokens"):
            encoder.head([*names], prompts)
    else:
        encoder.head([*names], prompts)
        assert cut in caplog.text
