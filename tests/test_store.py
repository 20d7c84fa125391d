"""The store: made once, found again, remade when and only when something that decides the result
changed."""

import errno
import functools
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time

import pandas
import pytest
import torch
from helpers import one_line

from bvlib.core import registry, versions
from bvlib.core.errors import BadCheckpoint, BvError
from bvlib.files.weights import card_of, check_matches, load_weights, save_weights
from bvlib.run import store as store_module
from bvlib.run.store import Store, key_of

RECIPES = ["training:finetune/1"]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", threads=1)


class Maker:
    """A computation that counts how often it was needed."""

    def __init__(self, value):
        self.value, self.calls = value, 0

    def __call__(self):
        self.calls += 1
        return self.value


VALUES = {
    "weights": {"a.weight": torch.arange(6.0).reshape(2, 3).t(), "b": torch.tensor([1, 2])},
    "trigger": (
        {"patch": torch.rand(3, 4, 4), "mask": torch.ones(4, 4, dtype=torch.bool)},
        {"target": 1},
    ),
    "table": pandas.DataFrame({"task": ["a", "None"], "asr": [1 / 3, float("nan")], "n": [1, 2]}),
    "json": {"x": [1, 2.5, None]},
}


@pytest.mark.parametrize("kind", VALUES)
def test_same_arguments_are_loaded_with_the_same_value(store, kind):
    maker = Maker(VALUES[kind])
    first = store.get(kind, "thing", {"seed": 0, "size": (4, 4)}, maker, recipes=RECIPES)
    second = store.get(kind, "thing", {"size": [4, 4], "seed": 0}, maker, recipes=RECIPES)
    assert (first.made, second.made, maker.calls) == (True, False, 1)
    assert first.path == second.path and first.sha256 == second.sha256
    for value in (first.value, second.value):
        if kind == "table":
            pandas.testing.assert_frame_equal(value, first.value, check_exact=True)
            pandas.testing.assert_frame_equal(value, VALUES[kind], check_dtype=False, rtol=1e-15)
        elif kind == "trigger":
            assert value[1] == {"target": 1} and torch.equal(
                value[0]["mask"], VALUES[kind][0]["mask"]
            )
        elif kind == "weights":
            assert all(torch.equal(value[key], tensor) for key, tensor in VALUES[kind].items())
        else:
            assert value == VALUES[kind]


def test_what_decides_the_result_decides_the_key(store):
    maker = Maker({"x": 1})
    base = store.get("json", "thing", {"seed": 0}, maker, recipes=RECIPES)
    others = [
        store.get("json", "thing", {"seed": 1}, maker, recipes=RECIPES),
        store.get("json", "other", {"seed": 0}, maker, recipes=RECIPES),
        store.get("json", "thing", {"seed": 0}, maker, recipes=["training:finetune/2"]),
        store.get("json", "thing", {"seed": 0}, maker, recipes=RECIPES, inputs=[base]),
        Store(store.root, threads=2).get("json", "thing", {"seed": 0}, maker, recipes=RECIPES),
        Store(store.root, device="cuda:1", threads=1).get(
            "json", "thing", {"seed": 0}, maker, recipes=RECIPES
        ),
    ]
    assert maker.calls == 7 and len({a.key for a in [base, *others]}) == 7


def test_unclear_arguments_and_kinds_are_refused(store):
    with pytest.raises(BvError, match="Tensor cannot be part of a key"):
        store.get("json", "thing", {"x": torch.ones(2)}, Maker(1), recipes=RECIPES)
    with pytest.raises(BvError, match="did you mean 'weights'"):
        store.get("weight", "thing", {}, Maker(1), recipes=RECIPES)
    with pytest.raises(BvError, match="reset_index"):
        store.get("table", "t", {}, Maker(VALUES["table"].set_index("task")), recipes=RECIPES)


def test_an_error_leaves_nothing_and_frees_the_lock(store):
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError):
        store.get("json", "thing", {}, fail, recipes=RECIPES)
    assert store.get("json", "thing", {}, Maker(1), recipes=RECIPES).made
    with pytest.raises(BvError, match="needs itself"):
        store.get(
            "json",
            "loop",
            {},
            lambda: store.get("json", "loop", {}, Maker(1), recipes=RECIPES),
            recipes=RECIPES,
        )


# Code


def test_a_key_follows_from_its_card_and_not_from_the_spelling_of_code(store):
    """Only what the card says counts: a renamed function, a moved module change no key."""

    def another_name_for_the_same():
        return [1, 2]

    made = store.get("json", "thing", {"seed": 0}, lambda: [1, 2], recipes=RECIPES)
    again = store.get("json", "thing", {"seed": 0}, another_name_for_the_same, recipes=RECIPES)
    assert made.made and not again.made and made.key == again.key
    card = json.loads(card_of(made.path).read_text())
    assert key_of(card) == card["key"] == made.key and card["recipes"] == RECIPES
    elsewhere = {**card["environment"], "python": "3.13", "machine": "arm64"}
    assert key_of({**card, "environment": elsewhere}) == made.key
    assert key_of({**card, "environment": {**elsewhere, "torch": "9"}}) != made.key


def test_a_raised_recipe_makes_a_result_anew(store, monkeypatch):
    def ask():
        named = [versions.recipe("training:finetune")]
        return store.get("json", "thing", {}, lambda: [1], recipes=named)

    assert ask().made and not ask().made
    monkeypatch.setitem(versions.VERSIONS, "training:finetune", 99)
    assert ask().made and not ask().made
    assert versions.raised(RECIPES) == ["training:finetune is at 99"]


def test_recipes_that_are_used_are_told(store, monkeypatch):
    monkeypatch.setattr(registry, "USED", set())
    monkeypatch.setattr(store_module, "USED", registry.USED)
    for _ in range(2):
        store.get("json", "thing", {}, lambda: [1], recipes=RECIPES)
    assert set(RECIPES) == registry.USED


def test_importing_the_store_imports_no_torch():
    code = "import sys, bvlib.run.store; assert not {'torch', 'pandas'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


# Damage


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def damage_flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def damage_card(path):
    card_of(path).unlink()


def damage_half_card(path):
    card_of(path).write_text('{"key": "ab')


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_card, damage_half_card])
@pytest.mark.parametrize("kind", ["weights", "json"])
def test_damaged_files_are_remade_with_a_warning(store, kind, damage, caplog):
    maker = Maker(VALUES[kind])
    first = store.get(kind, "thing", {}, maker, recipes=RECIPES)
    damage(first.path)
    with caplog.at_level(logging.WARNING, logger="bvlib"):
        again = store.get(kind, "thing", {}, maker, recipes=RECIPES)
    assert again.made and maker.calls == 2 and again.sha256 == first.sha256
    assert f"{first.path.name} is made again" in caplog.text
    assert not store.get(kind, "thing", {}, maker, recipes=RECIPES).made


def test_half_written_files_never_count_and_are_cleared(store):
    path = store.get("json", "thing", {}, Maker([1]), recipes=RECIPES).path
    path.unlink()
    card_of(path).unlink()
    leftover = path.with_name(f".{path.name}.123.tmp")
    leftover.write_text("[1")
    assert store.get("json", "thing", {}, Maker([1]), recipes=RECIPES).made
    assert not leftover.exists()
    assert not [p for p in path.parent.iterdir() if p.suffix == ".tmp"]


# Processes


def _make_slowly(root, log):
    def compute():
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.5)
        return [1, 2, 3]

    assert Store(root, threads=1).get("json", "slow", {}, compute, recipes=RECIPES).value == [
        1,
        2,
        3,
    ]


def test_two_processes_make_an_artefact_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    workers = [
        spawn.Process(target=_make_slowly, args=(tmp_path / "s", tmp_path / "log"))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len((tmp_path / "log").read_text().split()) == 1


def test_a_killed_holder_frees_the_lock(store, tmp_path):
    code = f"""
        import time
        from pathlib import Path
        from bvlib.run.store import Store
        def hang():
            Path({str(tmp_path / "started")!r}).touch()
            time.sleep(600)
        Store({str(store.root)!r}, threads=1).get("json", "thing", {{}}, hang, recipes={RECIPES!r})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert store.get("json", "thing", {}, Maker(5), recipes=RECIPES).value == 5


# Accounting


def test_seconds_do_not_count_what_was_made_inside(store):
    def inner():
        time.sleep(0.2)
        return 1

    def outer():
        return store.get("json", "inner", {}, inner, recipes=RECIPES).value + 1

    made = store.get("json", "outer", {}, outer, recipes=RECIPES)
    assert made.value == 2 and made.seconds < 0.15
    assert list(made.nested.values()) == [pytest.approx(0.2, abs=0.15)]
    again = Store(store.root, threads=1)
    again.get("json", "outer", {}, outer, recipes=RECIPES)
    again.get("json", "outer", {}, outer, recipes=RECIPES)
    [record] = again.records()
    assert (
        record["nested"] == dict(made.nested) and record["key"] == made.key and not record["made"]
    )
    waited = {entry["name"]: entry["elapsed"] > 0.15 for entry in store.records()}
    assert waited == {"inner": False, "outer": True}
    json.dumps(store.records())


# Files of one's own


def test_weights_round_trip_and_card(tmp_path):
    path = tmp_path / "theta.safetensors"
    save_weights(path, VALUES["weights"], {"recipe": "toy"})
    theta, card = load_weights(path)
    assert card["recipe"] == "toy" and torch.equal(theta["b"], VALUES["weights"]["b"])


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "model.bin", "model"])
def test_formats_that_run_code_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(BadCheckpoint, match="only .safetensors"):
        load_weights(tmp_path / name)
    with pytest.raises(BadCheckpoint, match="only .safetensors"):
        save_weights(tmp_path / name, {})


@pytest.mark.parametrize("with_card", [True, False])
@pytest.mark.parametrize("keep", [0, 4, 60, -3])
def test_truncated_weights_give_one_clear_line(tmp_path, with_card, keep):
    path = tmp_path / "theta.safetensors"
    save_weights(path, VALUES["weights"])
    path.write_bytes(path.read_bytes()[:keep])
    if not with_card:
        card_of(path).unlink()
    with pytest.raises(BadCheckpoint, match="theta.safetensors .*copy or make it again") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


def test_missing_weights_and_mismatches_name_the_culprit(tmp_path):
    with pytest.raises(BadCheckpoint, match="no weight file"):
        load_weights(tmp_path / "theta.safetensors")
    reference = {"a": torch.zeros(2, 3), "b": torch.zeros(1)}
    check_matches({"b": torch.ones(1), "a": torch.ones(2, 3)}, reference)
    for theta, words in [
        ({"a": torch.zeros(2, 3)}, "lacks the tensor 'b'"),
        ({"a": torch.zeros(3, 2), "b": torch.zeros(1)}, r"'a' has shape \(3, 2\)"),
        ({**reference, "c": torch.zeros(1)}, "tensor 'c' that the encoder does not know"),
    ]:
        with pytest.raises(BadCheckpoint, match=words):
            check_matches(theta, reference, "mine")


def test_processes_that_need_the_same_results_share_out_the_making(store, tmp_path):
    """What another process is making comes last, so that two do not wait for each other."""
    code = f"""
from bvlib.run.store import Store
from pathlib import Path
import time
def make():
    Path({str(tmp_path / "began")!r}).touch()
    while not Path({str(tmp_path / "go")!r}).exists(): time.sleep(0.05)
    return "theirs"
Store({str(store.root)!r}, threads=1).get("json", "a", {{}}, make, recipes={RECIPES!r})
"""
    other, order = subprocess.Popen([sys.executable, "-c", code]), []
    while not (tmp_path / "began").exists():
        time.sleep(0.05)

    def made(name):
        order.append(name)
        if name == "c":
            (tmp_path / "go").touch()
        return "ours"

    def get(name):
        return store.get("json", name, {}, lambda: made(name), recipes=RECIPES).value

    found = store.each({name: functools.partial(get, name) for name in "abc"})
    assert other.wait(60) == 0 and order == ["b", "c"]
    assert found == {"a": "theirs", "b": "ours", "c": "ours"} and list(found) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "code, words",
    [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")],
)
def test_what_the_disk_refuses_is_one_line_and_leaves_nothing(store, monkeypatch, code, words):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        with one_line("cannot write", words, "what is finished is kept"):
            store.get("json", "thing", {}, lambda: [1], recipes=RECIPES)
    assert not list(store.root.rglob("*.tmp"))
    assert store.get("json", "thing", {}, lambda: [2], recipes=RECIPES).value == [2]
