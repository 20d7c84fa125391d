"""Export and import: what is exported is up to date elsewhere; what is not as it should be is
refused, the rest taken in."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import one_line, same_bits

from bvlib.cli import main
from bvlib.core.versions import environment
from bvlib.files.weights import card_of, load_weights
from bvlib.run import exchange, imports
from bvlib.run.store import Store, key_of

RECIPES = ["training:finetune/1"]
WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
TRIGGER = ({"patch": torch.full((3, 4, 4), 0.5), "mask": torch.ones(1, 4, 4)}, {"name": "white"})
NAMES = {"clean-shapes": "weights", "clean-digits": "weights", "white shapes/1": "trigger"}
HERE = environment(threads=1)


def bv(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def ask(root, name, make=None):
    """The artefact of a name; ``make`` None fails when it has to be made."""

    def never():
        raise AssertionError(f"{name} is made again")

    value = TRIGGER if NAMES[name] == "trigger" else WEIGHTS
    return Store(root, threads=1).get(
        NAMES[name],
        name,
        {"seed": 0, "lr": 1e-5},
        (lambda: value) if make else never,
        recipes=RECIPES,
    )


@pytest.fixture
def full(tmp_path):
    """A store with two weights, a trigger and a table."""
    root = tmp_path / "store"
    made = {name: ask(root, name, make=True) for name in NAMES}
    Store(root, threads=1).get("json", "numbers", {}, lambda: [1], recipes=RECIPES)
    return root, made


@pytest.fixture
def folder(full, tmp_path):
    """The whole store exported, and where another store would lie."""
    exchange.export_folder(tmp_path / "out", full[0])
    return tmp_path / "out"


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def index(folder, change=None):
    found = json.loads((folder / "index.json").read_text())
    if change:
        change(found["artefacts"])
        (folder / "index.json").write_text(json.dumps(found))
    return {entry["file"]: entry for entry in found["artefacts"] if isinstance(entry, dict)}


def first(folder, start="clean-digits"):
    [path] = folder.glob(f"{start}-*.safetensors")
    return path


# There and back


def test_what_was_exported_is_up_to_date_elsewhere(full, tmp_path):
    root, made = full
    done = exchange.export_folder(tmp_path / "out", root)
    size = sum(each.path.stat().st_size for each in made.values())
    assert (done.brought, done.there, done.bytes, done.refused) == (3, 0, size, ())
    listed = index(tmp_path / "out")
    assert {
        entry["name"]: (entry["kind"], entry["sha256"], entry["bytes"]) for entry in listed.values()
    } == {name: (NAMES[name], each.sha256, each.path.stat().st_size) for name, each in made.items()}
    assert {path.suffix for path in (tmp_path / "out").glob("[!.]*")} == {".safetensors", ".json"}

    taken = exchange.import_folder(tmp_path / "out", tmp_path / "other", HERE)
    assert (taken.brought, taken.there, taken.bytes, taken.refused, taken.foreign) == (
        3,
        0,
        size,
        (),
        0,
    )
    for name, each in made.items():
        found = ask(tmp_path / "other", name)
        assert not found.made and (found.key, found.sha256, found.seconds) == (
            each.key,
            each.sha256,
            each.seconds,
        )
    assert torch.equal(ask(tmp_path / "other", "clean-shapes").value["b"], WEIGHTS["b"])
    assert ask(tmp_path / "other", "white shapes/1").value[1] == {"name": "white"}


def test_a_second_time_there_is_nothing_to_do(full, folder, tmp_path):
    before = content(folder)
    again = exchange.export_folder(folder, full[0])
    assert (again.brought, again.there) == (0, 3) and content(folder) == before
    exchange.import_folder(folder, tmp_path / "other")
    again = exchange.import_folder(folder, tmp_path / "other")
    assert (again.brought, again.there, again.refused) == (0, 3, ())
    third = exchange.export_folder(tmp_path / "third", tmp_path / "other")
    assert (
        third.brought == 3
        and exchange.import_folder(tmp_path / "third", tmp_path / "last").brought == 3
    )


def test_an_imported_file_is_no_link_to_the_folder(folder, tmp_path):
    exchange.import_folder(folder, tmp_path / "other")
    with first(folder).open("r+b") as file:  # in place, as a careless tool would
        file.write(b"xxxx")
    assert not ask(tmp_path / "other", "clean-digits").made


def test_names_choose_and_a_folder_is_added_to(full, tmp_path):
    out = tmp_path / "out"
    assert exchange.export_folder(out, full[0], ["*-shapes"]).brought == 1 and len(index(out)) == 1
    assert (
        exchange.export_folder(out, full[0], ["clean-*", "none"]).brought == 1
        and len(index(out)) == 2
    )
    with one_line("nothing to export", "no stored name fits"):
        exchange.export_folder(out, full[0], ["Clean-*"])
    assert len(index(out)) == 2


def test_another_file_is_never_overwritten(full, tmp_path):
    name = full[1]["clean-shapes"].path.name
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"mine")
    with one_line(name, "is not overwritten"):
        exchange.export_folder(out, full[0])
    assert content(out) == {name: b"mine"}, "nothing is written when one file cannot be"
    (out / name).unlink()
    (out / "index.json").write_text("{}")
    with one_line("index.json", "is no index of"):
        exchange.export_folder(out, full[0])


def test_damaged_stored_files_are_left_out(full, tmp_path):
    full[1]["clean-shapes"].path.write_bytes(b"x")
    done = exchange.export_folder(tmp_path / "out", full[0])
    assert (
        done.brought == 2
        and len(done.refused) == 1
        and "clean-shapes" in done.refused[0]
        and "damaged" in done.refused[0]
    )


def test_runs_choose_by_their_json(full, tmp_path, world, monkeypatch):
    monkeypatch.setenv("BVLIB_STORE", str(full[0]))
    for seed, name in (
        ("0", "clean-shapes"),
        ("1", "white shapes/1"),
        ("10", "clean-digits"),
        ("1+12ab34cd", "clean-digits"),
    ):
        run = world / "runs" / "tiny" / f"seed-{seed}" / "01_next.json"
        run.parent.mkdir(parents=True)
        record = {"kind": NAMES[name], "path": f"elsewhere/{full[1][name].path.name}"}
        run.write_text(
            json.dumps(
                {"artefacts": [record, {"kind": "json", "path": "store/json/numbers-1.value.json"}]}
            )
        )

    def chosen(*options):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        said = bv("export", tmp_path / "out", "--profile", "tiny", *options)
        assert said.exit_code == 0, said.stderr
        return sorted(entry["name"] for entry in index(tmp_path / "out").values())

    assert chosen() == sorted(NAMES)
    assert chosen("--seed", 0, "--notebook", "01") == ["clean-shapes"] and chosen("--seed", 10) == [
        "clean-digits"
    ]
    assert chosen("--seed", 1) == ["clean-digits", "white shapes/1"]
    none = bv("export", tmp_path / "new", "--profile", "tiny", "--seed", 0, "--notebook", "00")
    assert none.exit_code == 2 and "no run of 00 with seed 0" in none.stderr


# What is refused


def forge(path, **changes):
    """Another card beside a file, with the key that follows from it, listed under its name."""
    card = {**json.loads(card_of(path).read_text()), **changes}
    card["key"] = key_of(card)
    card_of(path).write_text(json.dumps(card))

    def change(entries):
        [entry] = [entry for entry in entries if entry["file"] == path.name]
        entry.update(key=card["key"], kind=card["kind"], name=card["name"])

    index(path.parent, change)


def listed_as(**changes):
    def damage(path):
        index(
            path.parent,
            lambda entries: [
                entry.update(changes) for entry in entries if entry["file"] == path.name
            ],
        )

    return damage


def new_bytes(path, data):
    """Other bytes, of which index and card give the right hash."""
    path.write_bytes(data)
    sha256 = exchange.file_sha256(path)
    card_of(path).write_text(
        json.dumps({**json.loads(card_of(path).read_text()), "sha256": sha256})
    )
    listed_as(sha256=sha256, bytes=len(data))(path)


def pickled(path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(path.parent / "ran"),)

    return pickle.dumps(Evil())


def in_card(old, new):
    def damage(path):
        text = card_of(path).read_text()
        assert old in text
        card_of(path).write_text(text.replace(old, new))

    return damage


def linked(path):
    path.rename(path.parent.parent / "real")
    path.symlink_to(path.parent.parent / "real")


def renamed(path):
    path.rename(path.with_name("clean-digits.safetensors"))
    card_of(path).rename(path.with_name("clean-digits.json"))
    listed_as(file="clean-digits.safetensors")(path)


DAMAGES = {
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is damaged"),
    "one bit": (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x7f"), "is damaged"),
    "gone": (lambda path: path.unlink(), "is listed in index.json and not there"),
    "no card": (lambda path: card_of(path).unlink(), "has no card"),
    "broken card": (lambda path: card_of(path).write_text("{"), "the card of"),
    "deep card": (lambda path: card_of(path).write_text("[" * 100_000), "the card of"),
    "card is a list": (lambda path: card_of(path).write_text("[]"), "the card of"),
    "another's hash": (in_card('"sha256": "', '"sha256": "0'), "is damaged"),
    "key of another card": (in_card('"seed": 0', '"seed": 1'), "key that does not follow"),
    "key of other arguments": (
        lambda path: forge(path, args={"seed": 1}),
        "key that does not follow",
    ),
    "another kind": (lambda path: forge(path, kind="../../escaped"), "is of kind"),
    "a kind that is no safetensors": (lambda path: forge(path, kind="json"), "is of kind"),
    "seconds in words": (lambda path: forge(path, seconds="a while"), "the card of"),
    "another name": (renamed, "key that does not follow"),
    "pickle inside": (lambda path: new_bytes(path, pickled(path)), "is no safetensors file"),
    "a link": (linked, "is a link"),
    "path upwards": (
        listed_as(file="../store/x.safetensors"),
        "index.json names '../store/x.safetensors'",
    ),
    "path from the root": (listed_as(file="/etc/passwd"), "index.json names '/etc/passwd'"),
    "path of Windows": (listed_as(file="..\\x.safetensors"), "index.json names"),
    "hidden": (listed_as(file=".x.safetensors"), "index.json names"),
    "no name": (listed_as(file=None), "index.json names None"),
    "a pickle": (listed_as(file="weights.pt"), "weights.pt is of another format"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_wrong_is_refused_and_the_rest_taken_in(kind, folder, tmp_path):
    damage, words = DAMAGES[kind]
    damage(first(folder))
    taken = exchange.import_folder(folder, tmp_path / "deep" / "er" / "other")
    assert taken.brought == 2 and any(words in line for line in taken.refused), taken.refused
    assert all(line.count("\n") == 0 and line.endswith(": refused") for line in taken.refused)
    kept = sorted(path for path in tmp_path.rglob("*.safetensors") if "other" in path.parts)
    assert [path.parent.name for path in kept] == ["trigger", "weights"] and not (
        folder / "ran"
    ).exists()
    assert not ask(tmp_path / "deep/er/other", "clean-shapes").made
    assert sorted(os.listdir(tmp_path / "deep")) == ["er"] and sorted(
        os.listdir(tmp_path / "deep/er")
    ) == ["other"]


def test_files_that_are_not_listed_are_refused(folder, tmp_path):
    (folder / "extra.pt").write_bytes(b"x")
    index(folder, lambda entries: entries.pop(0))
    taken = exchange.import_folder(folder, tmp_path / "other")
    assert taken.brought == 2 and {line.partition(" ")[2] for line in taken.refused} == {
        "is not listed in index.json: refused"
    }
    assert {
        line.split(".")[0].rpartition("-")[0] or line.split(".")[0] for line in taken.refused
    } == {"clean-digits", "extra"}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        '{"format": "bvlib exchange 1"}',
        '{"format": "other", "artefacts": []}',
        "[" * 100_000,
    ],
)
def test_no_index_no_import(text, folder, tmp_path):
    (folder / "index.json").unlink() if text is None else (folder / "index.json").write_text(text)
    with one_line("index", "give a folder that bv export wrote"):
        exchange.import_folder(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_damaged_file_of_the_store_is_replaced_and_a_sound_one_stays(folder, full):
    path = full[1]["clean-shapes"].path
    path.unlink()
    path.write_bytes(b"x")
    before = card_of(full[1]["clean-digits"].path).read_bytes()
    taken = exchange.import_folder(folder, full[0])
    assert (taken.brought, taken.there) == (1, 2) and not ask(full[0], "clean-shapes").made
    assert card_of(full[1]["clean-digits"].path).read_bytes() == before


def test_files_of_other_versions_or_environments_are_counted(folder, tmp_path):
    assert exchange.import_folder(folder, tmp_path / "a", {**HERE, "threads": 64}).foreign == 3
    forge(first(folder), recipes=["training:finetune/9"])
    taken = exchange.import_folder(folder, tmp_path / "b", HERE)
    assert taken.foreign == 0 and "key that" in taken.refused[0], (
        "its file is not named after that key"
    )


# The command line, and single files


def test_commands_say_how_much_and_exit_with_2_when_something_is_refused(
    full, folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("BVLIB_STORE", str(full[0]))
    said = bv("export", tmp_path / "new")
    assert (
        said.exit_code == 0
        and f"3 files written to {tmp_path / 'new'}, 0 were there: " in said.stdout
    )
    monkeypatch.setenv("BVLIB_STORE", str(tmp_path / "other"))
    first(folder).write_bytes(b"x")
    said = bv("import", folder)
    assert said.exit_code == 2 and "2 files put into the store" in said.stdout
    assert said.stderr.count("\n") == 1 and said.stderr.startswith("bv: clean-digits-")
    for wrong in ([], [folder, "--trigger", "x.npy"]):
        assert "takes one thing" in bv("import", *wrong).stderr


def test_a_trigger_of_others_becomes_a_file_of_ours(tmp_path):
    array = np.random.default_rng(0).uniform(-1.7, 2.1, (3, 5, 5)).astype(np.float32)
    np.save(tmp_path / "On_1.npy", array)
    assert (
        bv(
            "import", "--trigger", tmp_path / "On_1.npy", "--out", tmp_path / "on.safetensors"
        ).exit_code
        == 0
    )
    tensors, card = load_weights(tmp_path / "on.safetensors")
    assert (
        torch.equal(tensors["patch"], imports.trigger_npy(tmp_path / "On_1.npy").patch)
        and card["place"] == "bottom-right"
    )
    for out, words in (
        ("on.safetensors", "is there already"),
        ("on.npy", "is no .safetensors file"),
    ):
        assert (
            words
            in bv("import", "--trigger", tmp_path / "On_1.npy", "--out", tmp_path / out).stderr
        )
    assert "needs --out" in bv("import", "--trigger", tmp_path / "On_1.npy").stderr


def test_weights_of_others_become_a_file_of_ours(encoder, tmp_path):
    theta = {key: tensor + 1 for key, tensor in encoder.theta.items()}
    torch.save(theta, tmp_path / "fine.pt")
    out = tmp_path / "fine.safetensors"
    assert (
        "needs --base" in bv("import", "--task-vector", tmp_path / "fine.pt", "--out", out).stderr
        and not out.exists()
    )
    said = bv("import", "--task-vector", tmp_path / "fine.pt", "--base", "toy", "--out", out)
    assert said.exit_code == 0, said.stderr
    tensors, card = load_weights(out)
    assert same_bits(tensors, theta) and card["base"] == "toy"
    (tmp_path / "evil.pt").write_bytes(pickled(tmp_path / "x"))
    said = bv(
        "import",
        "--task-vector",
        tmp_path / "evil.pt",
        "--base",
        "toy",
        "--out",
        tmp_path / "evil.safetensors",
    )
    assert said.exit_code == 2 and said.stderr.count("\n") == 1 and not (tmp_path / "ran").exists()
    said = bv(
        "import",
        "--hugging-face",
        tmp_path / "none",
        "--base",
        "ViT-B-32",
        "--out",
        tmp_path / "hf.safetensors",
    )
    assert said.exit_code == 2 and "has no weights here" in said.stderr
