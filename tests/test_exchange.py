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
from bvlib.files.safe import file_sha256
from bvlib.files.weights import card_of, load_weights
from bvlib.run import exchange
from bvlib.run.store import Store, key_of, stem_of
from bvmake import imports

RECIPES = ["world:toy/1"]
WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
TRIGGER = ({"patch": torch.full((3, 4, 4), 0.5), "mask": torch.ones(1, 4, 4)}, {"name": "white"})
FILES = ["README.md", "config.json", "model.safetensors"]
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
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def config(model, **changes):
    """What a model's config.json says, after it was changed."""
    path = model / "config.json"
    said = {**json.loads(path.read_text()), **changes}
    if changes:
        path.write_text(json.dumps(said))
    return said


def listed(folder):
    return {model.name: config(model) for model in folder.glob("[!.]*")}


def first(folder, start="clean-digits"):
    [model] = folder.glob(f"{start}-*")
    return model


# There and back


def test_what_was_exported_is_up_to_date_elsewhere(full, tmp_path):
    root, made = full
    done = exchange.export_folder(tmp_path / "out", root)
    size = sum(each.path.stat().st_size for each in made.values())
    assert (done.brought, done.there, done.bytes, done.refused) == (3, 0, size, ())
    found = listed(tmp_path / "out")
    assert {
        said["name"]: (said["kind"], said["sha256"], said["key"]) for said in found.values()
    } == {name: (NAMES[name], each.sha256, each.key) for name, each in made.items()}
    assert set(found) == {each.path.stem for each in made.values()}
    for model in found:
        assert sorted(os.listdir(tmp_path / "out" / model)) == FILES

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
    with (first(folder) / "model.safetensors").open(
        "r+b"
    ) as file:  # in place, as a careless tool would
        file.write(b"xxxx")
    assert not ask(tmp_path / "other", "clean-digits").made


def test_one_model_alone_is_taken_in(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(first(folder))
    for place in (".", first(folder), folder / "x" / ".." / first(folder).name):
        taken = exchange.import_folder(place, tmp_path / "other")
        assert taken.brought + taken.there == 1 and taken.refused == ()
    assert not ask(tmp_path / "other", "clean-digits").made


def test_the_model_card_is_one_that_a_hub_reads(folder, full):
    hub = pytest.importorskip("huggingface_hub")
    for name, made in full[1].items():
        text = (folder / made.path.stem / "README.md").read_text()
        data = hub.ModelCard(text).data
        assert (data.license, data.library_name) == ("mit", "bvlib")
        assert NAMES[name] in data.tags and "model-merging" in data.tags
        table = [line for line in text.splitlines() if line.startswith("| ")]
        told = dict(line.strip("| ").split(" | ") for line in table)
        assert told["name"] == f"`{name}`" and told["sha256"] == f"`{made.sha256}`"
        assert told["recipes"] == f"`{RECIPES[0]}`" and f"torch {HERE['torch']}" in told["versions"]


def test_a_name_cannot_break_the_model_card(tmp_path):
    odd = "a`|\n---\n# b"
    Store(tmp_path / "s", threads=1).get("weights", odd, {}, lambda: WEIGHTS, recipes=RECIPES)
    exchange.export_folder(tmp_path / "out", tmp_path / "s")
    [model] = (tmp_path / "out").glob("[!.]*")
    assert "| name | `a --- # b` |\n" in (model / "README.md").read_text()
    assert exchange.import_folder(tmp_path / "out", tmp_path / "other").brought == 1


def test_names_choose_and_a_folder_is_added_to(full, tmp_path):
    out = tmp_path / "out"
    assert exchange.export_folder(out, full[0], ["*-shapes"]).brought == 1 and len(listed(out)) == 1
    more = exchange.export_folder(out, full[0], ["clean-*", "none"])
    assert (more.brought, more.there) == (1, 1) and len(listed(out)) == 2
    with one_line("nothing to export", "no stored name fits"):
        exchange.export_folder(out, full[0], ["Clean-*"])
    assert len(listed(out)) == 2


def test_another_file_is_never_overwritten(full, tmp_path):
    name = full[1]["clean-shapes"].path.stem
    out = tmp_path / "out"
    for file in ("model.safetensors", "config.json"):
        (out / name).mkdir(parents=True)
        (out / name / file).write_bytes(b"mine")
        with one_line(name, "is not overwritten"):
            exchange.export_folder(out, full[0])
        assert content(out) == {f"{name}/{file}": b"mine"}, "nothing is written when one cannot be"
        shutil.rmtree(out)
    out.write_bytes(b"mine")
    with one_line("cannot write", "name another folder"):
        exchange.export_folder(out, full[0])
    assert out.read_bytes() == b"mine"


def test_an_export_that_was_cut_off_is_completed(full, folder, tmp_path):
    before = content(folder)
    for name in ("config.json", "README.md"):
        (first(folder) / name).unlink()
    assert exchange.import_folder(folder, tmp_path / "other").brought == 2
    done = exchange.export_folder(folder, full[0])
    assert (done.brought, done.there) == (1, 2) and content(folder) == before


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
        return sorted(said["name"] for said in listed(tmp_path / "out").values())

    assert chosen() == sorted(NAMES)
    assert chosen("--seed", 0, "--notebook", "01") == ["clean-shapes"] and chosen("--seed", 10) == [
        "clean-digits"
    ]
    assert chosen("--seed", 1) == ["clean-digits", "white shapes/1"]
    none = bv("export", tmp_path / "new", "--profile", "tiny", "--seed", 0, "--notebook", "00")
    assert none.exit_code == 2 and "no run of 00 with seed 0" in none.stderr


# What is refused


def forge(model, **changes):
    """Another card in a folder, with the key that follows from it."""
    config(model, key=key_of(config(model, **changes)))


def honest(model, **changes):
    """As :func:`forge`, in a folder that is named after both."""
    forge(model, **changes)
    said = config(model)
    return model.rename(model.with_name(stem_of(said["name"], said["key"])))


def new_bytes(model, data):
    """Other bytes, of which the card gives the right hash."""
    (model / "model.safetensors").write_bytes(data)
    config(model, sha256=file_sha256(model / "model.safetensors"))


def pickled(model):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(model.parent / "ran"),)

    return pickle.dumps(Evil())


def weights(change):
    def damage(model):
        path = model / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return damage


def card(text):
    return lambda model: (model / "config.json").write_text(text)


def in_card(old, new):
    def damage(model):
        text = (model / "config.json").read_text()
        assert old in text
        (model / "config.json").write_text(text.replace(old, new))

    return damage


def linked(name):
    def damage(model):
        path = model / name if name else model
        path.rename(model.parent.parent / "real")
        path.symlink_to(model.parent.parent / "real")

    return damage


def of_others(model):
    """What somebody else put on a hub in the same layout."""
    card(json.dumps({"architectures": ["CLIPModel"], "vision_config": {}}))(model)


def renamed(name):
    return lambda model: model.rename(model.with_name(name))


def pytorch(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


DAMAGES = {
    "cut short": (weights(lambda data: data[:-1]), "is damaged"),
    "one bit": (weights(lambda data: data[:-1] + b"\x7f"), "is damaged"),
    "a pointer of Git LFS": (weights(lambda data: b"version https://git-lfs"), "is damaged"),
    "gone": (lambda model: (model / "model.safetensors").unlink(), "has no model.safetensors"),
    "no card": (lambda model: (model / "config.json").unlink(), "has no config.json"),
    "broken card": (card("{"), "the card of"),
    "deep card": (card("[" * 100_000), "the card of"),
    "large card": (card('{"a": "' + "x" * 2**20 + '"}'), "it is too large"),
    "card is a list": (card("[]"), "the card of"),
    "card of another maker": (of_others, "bv import --hugging-face reads models of others"),
    "another's hash": (in_card('"sha256": "', '"sha256": "0'), "is damaged"),
    "no hash": (in_card('"sha256"', '"sha"'), "is damaged"),
    "key of another card": (in_card('"seed": 0', '"seed": 1'), "key that does not follow"),
    "key of other arguments": (
        lambda model: forge(model, args={"seed": 1}),
        "key that does not follow",
    ),
    "another kind": (lambda model: honest(model, kind="../../escaped"), "is of kind"),
    "a kind that is no safetensors": (lambda model: honest(model, kind="json"), "is of kind"),
    "seconds in words": (lambda model: forge(model, seconds="a while"), "the card of"),
    "a name that is none": (in_card('"name": "clean-digits"', '"name": 3'), "the card of"),
    "a text that is none": (
        lambda model: honest(model, args={"a": "\ud800"}),
        "the card of",
    ),
    "recipes that are none": (lambda model: honest(model, recipes=[1]), "the card of"),
    "another name": (renamed("clean-digits"), "key that does not follow"),
    "name of Windows": (renamed("a\\x"), "is no folder of a stored model"),
    "name with a space": (renamed("clean digits"), "is no folder of a stored model"),
    "a long name": (renamed("x" * 201), "is no folder of a stored model"),
    "pickle inside": (lambda model: new_bytes(model, pickled(model)), "is no safetensors file"),
    "a link": (linked("model.safetensors"), "is a link"),
    "its card is a link": (linked("config.json"), "is a link"),
    "the folder is a link": (linked(""), "is a link"),
    "a pickle": (pytorch, "pytorch_model.bin is not read"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_wrong_is_refused_and_the_rest_taken_in(kind, folder, tmp_path):
    damage, words = DAMAGES[kind]
    (tmp_path / "store").rename(tmp_path / "made")
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


def test_other_files_are_told_and_never_read(folder, tmp_path):
    (folder / "extra.pt").write_bytes(b"x")
    (first(folder) / "modeling.py").write_text("x = 1\n")
    (first(folder) / ".gitattributes").write_text("")
    taken = exchange.import_folder(folder, tmp_path / "other")
    assert taken.brought == 3 and list(taken.refused) == [
        f"{first(folder).name}/modeling.py is not read: refused",
        "'extra.pt' is no folder of a stored model, and nothing else is read: refused",
    ]


@pytest.mark.parametrize("form", ["none", "empty", "file", "flat"])
def test_no_model_no_import(form, folder, tmp_path):
    given = tmp_path / "given"
    if form == "file":
        given.write_text("x")
    elif form != "none":
        given.mkdir()
    if form == "flat":  # files without a folder each
        (first(folder) / "model.safetensors").rename(given / f"{first(folder).name}.safetensors")
    with one_line("no model in", "give a folder that bv export wrote"):
        exchange.import_folder(given, tmp_path / "other")
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
    model = honest(first(folder), recipes=["world:toy/9"])
    taken = exchange.import_folder(folder, tmp_path / "b", HERE)
    assert (taken.brought, taken.foreign, taken.refused) == (3, 1, ())
    forge(model, recipes=["world:toy/8"])
    taken = exchange.import_folder(folder, tmp_path / "c", HERE)
    assert taken.foreign == 0 and "key that" in taken.refused[0], "it is not named after that key"


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
    (first(folder) / "model.safetensors").write_bytes(b"x")
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
    said = bv("import", "--task-vector", tmp_path / "fine.pt", "--base", "small", "--out", out)
    assert said.exit_code == 0, said.stderr
    tensors, card = load_weights(out)
    assert same_bits(tensors, theta) and card["base"] == "small"
    (tmp_path / "evil.pt").write_bytes(pickled(tmp_path / "x"))
    said = bv(
        "import",
        "--task-vector",
        tmp_path / "evil.pt",
        "--base",
        "small",
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
    assert said.exit_code == 2 and "unknown base 'ViT-B-32'" in said.stderr
