"""Cases from the field: inputs that other projects took without a word. Here each gives the right
value or one line that refuses it."""

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import one_line, same_bits
from PIL import Image
from safetensors.torch import save_file

from bvlib.cli import main
from bvlib.core.metrics import attack_success_rate
from bvlib.core.vectors import TaskVector
from bvlib.files import foreign
from bvlib.files.weights import digest, load_weights, save_weights
from bvlib.merging import merge
from bvlib.merging.streaming import merge_files
from bvlib.run import imports, notebooks, records
from bvlib.run.points import read_sweep
from bvlib.worlds import images, prepare, tasks

# What is not finite


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_a_coefficient_is_finite(method, value):
    vectors = [TaskVector({"w": torch.ones(3)})] * 2
    with one_line(f"coefficient of '{method}'", "finite"):
        merge(method, vectors, coefficient=value)


def test_a_merge_that_overflows_is_refused():
    vectors = [TaskVector({"w": torch.tensor([60000.0]).half()})] * 2
    with one_line("the merge by 'task_arithmetic' cannot be used", "'w'"):
        merge("task_arithmetic", vectors, coefficient=1.0)


def test_a_merge_from_file_to_file_that_overflows_leaves_nothing(tmp_path):
    for name, value in {"base": 0.0, "a": 60000.0, "b": 60000.0}.items():
        save_file({"w": torch.full((8,), value).half()}, tmp_path / f"{name}.safetensors")
    files = [tmp_path / f"{name}.safetensors" for name in ("base", "a", "b", "out")]
    with one_line("'w'", "not finite in torch.float16"):
        merge_files("task_arithmetic", files[0], files[1:3], files[3], coefficient=1.0)
    assert not files[3].exists()


@pytest.mark.parametrize("spoilt", [math.nan, 1e30])
def test_a_model_whose_answers_are_not_finite_has_no_accuracy(encoder, shapes, head, spoilt):
    theta = {key: tensor * spoilt for key, tensor in encoder.theta.items()}
    with one_line("answers are not finite", "merging coefficient"):
        encoder.predict(theta, shapes.test.images, head)


def test_a_cosine_with_an_infinite_entry_is_no_number():
    one, other = TaskVector({"w": torch.ones(2)}), TaskVector({"w": torch.tensor([1.0, math.inf])})
    assert math.isnan(one.cosine(other)) and math.isnan(other.cosine(other))
    assert one.cosine(one) == pytest.approx(1)


@pytest.mark.parametrize("target", [99, -1])
def test_a_target_that_is_no_class_has_no_asr(target):
    with one_line(f"target class {target}", "0 to 2"):
        attack_success_rate([0, 1, 2], [0, 1, 2], target)
    assert attack_success_rate([2, 2, 2], [0, 1, 1], 2).percent == 100  # of others only


@pytest.mark.parametrize("factor, right", [(1, True), (255, False), (-1, False)])
def test_floats_that_are_no_pixels(encoder, shapes, factor, right):
    pixels = shapes.test.images.permute(0, 3, 1, 2).float() / 255
    if right:
        assert torch.equal(encoder.pixels(pixels), encoder.pixels(shapes.test.images))
    else:
        with one_line("pixels reach from", "floats from 0 to 1"):
            encoder.pixels(factor * pixels)


# Others' checkpoints


def spoil(theta, how):
    key = "conv1.weight"
    if how == "difference":
        return {k: 0.01 * (t - t.mean()) for k, t in theta.items()}
    if how == "int8":
        return {**theta, key: (100 * theta[key]).to(torch.int8)}
    return {**theta, key: torch.full_like(theta[key], math.nan)}


@pytest.mark.parametrize(
    "how, words",
    [
        ("difference", "difference of weights"),
        ("int8", "quantised weights, 'conv1.weight' is torch.int8"),
        ("nan", "'conv1.weight' has entries that are not finite"),
    ],
)
def test_what_are_no_weights_is_not_imported_as_weights(encoder, tmp_path, how, words):
    path = tmp_path / "ft.safetensors"
    save_file({k: t.contiguous() for k, t in spoil(encoder.theta, how).items()}, path)
    with one_line("ft.safetensors", words):
        imports.task_vector_pt(path, encoder)


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "net.", "clip.visual.", "model._orig_mod.visual."]
)
def test_prefixes_of_compilers_and_trainers_are_left_out(encoder, tmp_path, prefix):
    path = tmp_path / "ft.pt"
    torch.save({prefix + key: tensor for key, tensor in encoder.theta.items()}, path)
    assert same_bits(imports.task_vector_pt(path, encoder), encoder.theta)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b'{"metadata": {}, "weight_map": {}}', "JSON"),
    ],
)
@pytest.mark.parametrize("name", ["ft.pt", "ft.safetensors"])
def test_files_that_are_something_else_are_called_by_their_name(
    encoder, tmp_path, content, words, name
):
    (tmp_path / name).write_bytes(content)
    with one_line(name, words):
        imports.task_vector_pt(tmp_path / name, encoder)


def test_a_difference_that_is_declared_is_added_to_its_base(encoder, tmp_path):
    path, base = tmp_path / "ft.safetensors", encoder.theta
    save_file({key: torch.full_like(tensor, 0.01) for key, tensor in base.items()}, path)
    found = imports.task_vector_pt(path, encoder, difference=True)
    assert same_bits(found, {key: tensor + 0.01 for key, tensor in base.items()})


def shards(folder, theta, **changes):
    """A model in two files and their index."""
    keys = sorted(theta)
    parts = {"a.safetensors": keys[::2], "b.safetensors": keys[1::2]}
    for name, own in parts.items():
        save_file({key: theta[key].contiguous() for key in own}, folder / name)
    named = {key: name for name, own in parts.items() for key in own}
    path = folder / foreign.INDEX
    path.write_text(json.dumps({"weight_map": {**named, **changes}}))
    return path


def test_shards_are_read_by_their_index(encoder, tmp_path):
    path = shards(tmp_path, encoder.theta)
    assert same_bits(imports.task_vector_pt(path, encoder), encoder.theta)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"x": "../other.safetensors"}, "leads out of its folder"),
        ({"x": "c.safetensors"}, "no weight file"),
        ({"x": "a.safetensors"}, "lack 'x'"),
    ],
)
def test_shards_that_do_not_fit_their_index(encoder, tmp_path, changes, words):
    with one_line(words):
        imports.task_vector_pt(shards(tmp_path, encoder.theta, **changes), encoder)


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


# Paths, parameters, files


def test_own_data_is_stale_when_it_was_prepared_anew(world, monkeypatch):
    (world / "data").mkdir()
    monkeypatch.chdir(world)
    [job] = records.jobs(["00"], "tiny", 0, {"tasks": ["mine", "b"]})
    before = records.fingerprint(job)["data"]
    (world / "data" / "mine.npz").write_bytes(b"1")
    made = records.fingerprint(job)["data"]
    (world / "data" / "other.npz").write_bytes(b"1")
    assert before == {} and list(made) == ["mine.npz"] == list(records.fingerprint(job)["data"])
    (world / "data" / "mine.npz").write_bytes(b"22")
    assert records.fingerprint(job)["data"] != made


@pytest.mark.parametrize("named", ["mystore", "~/mystore", "./a/../mystore"])
def test_folders_of_the_environment_are_those_seen_from_where_bv_is_called(
    tmp_path, monkeypatch, named
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BVLIB_STORE", named)
    notebooks.settle_folders()
    assert notebooks.store_folder().is_absolute()
    assert notebooks.store_folder().resolve() == tmp_path / "mystore"


@pytest.mark.parametrize(
    "value, words",
    [
        ({"seed": 1.7}, "parameter seed wants int, got 1.7"),
        ({"scale": "0.5"}, "parameter scale wants float, got '0.5'"),
        ({"scale": "false"}, "parameter scale wants float"),
        ({"tasks": "[x, y]"}, ["x", "y"]),
    ],
)
def test_papermill_alone_is_as_strict_as_bv_run(world, value, words):
    usual = {"profile": "tiny", "seed": 0, "out": "o", "scale": 1.0, "tasks": ["a"]}
    if isinstance(words, list):
        assert notebooks.parameters_of("00", usual | value)["tasks"] == words
    else:
        with one_line(words):
            notebooks.parameters_of("00", usual | value)


def test_numbers_without_a_point_in_a_sweep_are_numbers(world):
    (world / "grid.yaml").write_text("profile: tiny\ngrid:\n  scale: [1e-1, 5E2, 2]\n")
    read = read_sweep(world / "grid.yaml", ["01"])
    assert [point["scale"] for point in read.points] == [0.1, 500.0, 2]


def test_a_sweep_in_another_encoding_is_told_in_one_line(world):
    (world / "grid.yaml").write_bytes("grid: {scale: [1]}  # für".encode("cp1252"))
    with one_line("cannot read the sweep", "grid.yaml"):
        read_sweep(world / "grid.yaml", ["01"])


def test_copies_and_drafts_of_notebooks_are_let_alone(world):
    (world / "notebooks" / "Untitled.ipynb").write_text("{")
    (world / "notebooks" / "Untitled3.ipynb").write_text("{")
    (world / "notebooks" / "00_start-Copy1.ipynb").write_text("{")
    assert [each.name for each in notebooks.find(None)] == ["00_start", "01_next"]
    assert [each.name for each in notebooks.find(["00"])] == ["00_start"]


@pytest.mark.parametrize("content", ["", "{", "[1]", '"text"'])
def test_a_damaged_card_is_told_in_one_line(tmp_path, content):
    save_weights(tmp_path / "w.safetensors", {"w": torch.ones(2)})
    (tmp_path / "w.json").write_text(content)
    with one_line("w.json is damaged"):
        load_weights(tmp_path / "w.safetensors")


def test_a_card_with_a_byte_order_mark_is_read(tmp_path):
    save_weights(tmp_path / "w.safetensors", {"w": torch.ones(2)}, {"name": "mine"})
    path = tmp_path / "w.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_weights(tmp_path / "w.safetensors")[1]["name"] == "mine"


def test_half_precision_has_a_digest_of_its_own():
    one, other = ({"w": torch.ones(2, dtype=kind)} for kind in (torch.bfloat16, torch.float16))
    assert digest(one) != digest(other) and digest({"w": torch.tensor(1.0)})


def test_safetensors_of_a_full_disk_are_told_in_one_line(tmp_path, monkeypatch):
    import safetensors.torch

    def refuse(*_, **__):
        said = "Error while serializing: I/O error: No space left on device (os error 28)"
        raise safetensors.SafetensorError(said)

    monkeypatch.setattr(safetensors.torch, "save_file", refuse)
    with one_line("w.safetensors", "No space left on device", "make room there"):
        save_weights(tmp_path / "w.safetensors", {"w": torch.ones(2)})
    assert not [*tmp_path.iterdir()]


def test_class_folders_in_the_order_of_text_are_known_by_their_number():
    """Kaggle's GTSRB: folders 0, 1, 10, 11, … (vision#714)."""
    gtsrb = images.DATASETS["gtsrb"]
    words, names = list(gtsrb.words.values()), sorted(map(str, range(43)))
    assert gtsrb.read_names(names) == [words[int(name)] for name in names]
    assert gtsrb.read_names([f"{i:05d}" for i in range(43)]) == words
    assert gtsrb.read_names(["0", "2"]) == ["0", "2"]  # not all classes: which are they?


def test_written_weights_are_for_others_to_read_as_any_file(tmp_path):
    """safetensors writes files of mode 0600 (safetensors#782)."""
    save_weights(tmp_path / "mine.safetensors", {"a": torch.ones(2)})
    (tmp_path / "plain").touch()
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(set(modes.values())) == 1, modes
