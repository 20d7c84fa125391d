"""Cases from the field, and their neighbours: numbers, files. What other projects took without a
word gives the right value here, or one line that refuses it."""

import errno
import math
import os
import subprocess

import pytest
import torch
from helpers import one_line
from safetensors.torch import save_file

from bvlib.core.metrics import attack_success_rate, rate
from bvlib.core.vectors import TaskVector
from bvlib.files.weights import digest, load_weights, save_weights
from bvlib.merging import merge
from bvlib.merging.streaming import merge_files
from bvlib.run import kernel, records, workflow
from bvlib.run.store import Store

# What is not finite


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, torch.tensor(math.nan), "0.5", None, True, [0.3], 10**400],
)
@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare"])
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


@pytest.mark.parametrize(
    "predicted, labels, target, classes, words",
    [
        ([5, 5], [0, 1], 1, 2, "class id 5 is none of the classes 0 to 1"),
        ([0, 0], [0, 7], 0, 3, "class id 7 is none of the classes 0 to 2"),
        ([0, 0], [-1, 1], 0, None, "labels hold -1, which is no class id"),
        ([0, 1], [0, 1], True, None, "the target class is a class id, not True"),
        ([math.nan, 0.0], [0, 1], 0, None, "must be class ids (integers)"),
        (torch.tensor([0, 1]).bfloat16(), [0, 1], 0, None, "must be class ids (integers)"),
    ],
)
def test_an_asr_of_what_are_no_classes(predicted, labels, target, classes, words):
    with one_line(words):
        attack_success_rate(predicted, labels, target, classes)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.bool])
def test_a_rate_of_any_type_of_hits(kind):
    assert rate(torch.tensor([0, 1, 1, 1]).to(kind)).percent == 75
    if kind.is_floating_point:
        with one_line("true or false"):
            rate(torch.tensor([0.0, 0.5]).to(kind))


@pytest.mark.parametrize("factor, right", [(1, True), (255, False), (-1, False)])
def test_floats_that_are_no_pixels(encoder, shapes, factor, right):
    pixels = shapes.test.images.permute(0, 3, 1, 2).float() / 255
    if right:
        assert torch.equal(encoder.pixels(pixels), encoder.pixels(shapes.test.images))
    else:
        with one_line("pixels reach from", "floats from 0 to 1"):
            encoder.pixels(factor * pixels)


# Files


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'"text"', b"null", "{}".encode("utf-16"), b"[" * 100_000]
)
def test_a_damaged_card_is_told_in_one_line(tmp_path, content):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"w": torch.ones(2)})
    (tmp_path / "w.json").write_bytes(content)
    with one_line("w.json is damaged"):
        load_weights(path)
    with one_line("w.json is damaged"):
        merge_files("average", path, [path], tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_card_with_a_byte_order_mark_is_read(tmp_path):
    save_weights(tmp_path / "w.safetensors", {"w": torch.ones(2)}, {"name": "mine"})
    path = tmp_path / "w.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_weights(tmp_path / "w.safetensors")[1]["name"] == "mine"
    merge_files(
        "average",
        path.with_name("w.safetensors"),
        [path.with_name("w.safetensors")],
        tmp_path / "out.safetensors",
    )


def test_half_precision_has_a_digest_of_its_own():
    one, other = ({"w": torch.ones(2, dtype=kind)} for kind in (torch.bfloat16, torch.float16))
    assert digest(one) != digest(other) and digest({"w": torch.tensor(1.0)})


@pytest.mark.parametrize(
    "theta, words",
    [
        ({1: torch.ones(1)}, "1 is a Tensor whose name is no text"),
        ({"w": [1.0]}, "'w' is a list"),
        ({"w": torch.ones(3).to_sparse()}, "'w' is a tensor that is sparse or has no data"),
        ({"w": torch.ones(3, device="meta")}, "'w' is a tensor that is sparse or has no data"),
    ],
)
def test_what_is_no_dict_of_tensors_is_not_written(tmp_path, theta, words):
    with one_line("weights are a dict of tensors", words):
        save_weights(tmp_path / "w.safetensors", theta)
    assert not [*tmp_path.iterdir()]


def ways_to_write(folder, path, theta):
    """Weights, a merge from file to file, and a stored result, into a folder."""
    return [
        lambda: save_weights(folder / "a.safetensors", theta),
        lambda: merge_files("average", path, [path], folder / "b.safetensors"),
        lambda: Store(folder).get("weights", "c", {}, lambda: theta, recipes=["world:toy/1"]),
    ]


def test_a_file_that_may_grow_no_further_is_told_in_one_line(tmp_path):
    """As a full disk or a quota, without mounting anything."""
    resource = pytest.importorskip("resource")  # not on Windows
    path, theta = tmp_path / "w.safetensors", {"w": torch.ones(100_000)}
    save_weights(path, theta)
    (below := tmp_path / "below").mkdir()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, usual[1]))
    try:
        for way in ways_to_write(below, path, theta):
            with one_line("cannot write", "File too large"):
                way()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert not [each for each in below.rglob("*.safetensors*") if each.suffix != ".lock"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts: needs root")
@pytest.mark.parametrize("how, words", [("size=256k", "No space left"), ("ro", "Read-only")])
def test_a_disk_that_is_full_or_read_only_is_told_in_one_line(tmp_path, monkeypatch, how, words):
    (disk := tmp_path / "disk").mkdir()
    path, theta = tmp_path / "w.safetensors", {"w": torch.ones(100_000)}
    save_weights(path, theta)
    mount = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this root may not mount")
    try:
        for way in ways_to_write(disk, path, theta):
            with one_line("cannot write", words):
                way()
        assert not [each for each in disk.rglob("*.safetensors*") if each.suffix != ".lock"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_full_during_a_run_is_told_in_one_line(world, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kernel, "execute", refuse)
    [job] = records.jobs(["00"], "tiny", 0)
    with one_line("cannot write", "seed-0", "No space left on device", "make room there"):
        workflow.run_job(job, lambda line: None)


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
