"""Cases from the field: inputs that other projects took without a word. Here each gives the right
value or one line that refuses it."""

import json
import math

import pytest
import torch
from helpers import one_line, same_bits
from safetensors.torch import save_file

from bvlib.core.metrics import attack_success_rate
from bvlib.core.vectors import TaskVector
from bvlib.files import foreign
from bvlib.files.weights import digest, load_weights, save_weights
from bvlib.merging import merge
from bvlib.merging.streaming import merge_files
from bvlib.run import checkpoints, notebooks, records
from bvlib.run.points import read_sweep

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
        checkpoints.task_vector_pt(path, encoder)


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "net.", "clip.visual.", "model._orig_mod.visual."]
)
def test_prefixes_of_compilers_and_trainers_are_left_out(encoder, tmp_path, prefix):
    path = tmp_path / "ft.pt"
    torch.save({prefix + key: tensor for key, tensor in encoder.theta.items()}, path)
    assert same_bits(checkpoints.task_vector_pt(path, encoder), encoder.theta)


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
        checkpoints.task_vector_pt(tmp_path / name, encoder)


def test_a_difference_that_is_declared_is_added_to_its_base(encoder, tmp_path):
    path, base = tmp_path / "ft.safetensors", encoder.theta
    save_file({key: torch.full_like(tensor, 0.01) for key, tensor in base.items()}, path)
    found = checkpoints.task_vector_pt(path, encoder, difference=True)
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
    assert same_bits(checkpoints.task_vector_pt(path, encoder), encoder.theta)


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
        checkpoints.task_vector_pt(shards(tmp_path, encoder.theta, **changes), encoder)


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


def test_written_weights_are_for_others_to_read_as_any_file(tmp_path):
    """safetensors writes files of mode 0600 (safetensors#782)."""
    save_weights(tmp_path / "mine.safetensors", {"a": torch.ones(2)})
    (tmp_path / "plain").touch()
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(set(modes.values())) == 1, modes
