"""Admission of a base: criteria worked out by hand, files and page of the smoke profile, the
freeze in a card."""

import json
import math
import re
import shutil
from functools import partial

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from helpers import FEW_IMAGES, one_line, smoke_with

from bvlib import cli
from bvlib.report.criteria import CRITERIA
from bvlib.run import notebooks, settings
from bvlib.worlds import bases, tasks
from bvmake import admission
from bvmake.admission import measures
from bvmake.admission import page as admission_page

TASKS = pd.DataFrame(
    {
        "task": ["a", "b", "c"],
        "zero_shot": [40.0, 50.0, 60.0],
        "merged": [60.0, 60.0, 61.0],
        "gain": [40.0, 15.0, 2.0],
        "recovered": [50.0, 66.0, math.nan],
        "times_median": [1.0, 2.0, 0.8],
    }
)
RECIPES = pd.DataFrame({"own": [88.5, 89.0, 88.1, 87.9], "norm": [3.0, 4.0, 2.0, 1.0]})
UNIVERSAL = {4: (85, 20, 79.9), 6: (95, 80, 10), 8: (90, 90, 90)}


def weakness(universal=UNIVERSAL, noise=5.0):
    rows = [("base", c, 0, "none", 0.0) for c in range(3)] + [
        ("clean merge", c, 4, "universal", 100.0) for c in range(3)
    ]
    for size, values in universal.items():
        for c, value in enumerate(values):
            rows += [
                ("base", c, size, "universal", value),
                ("base", c, size, "random", noise + c - 2),
                ("clean merge", c, size, "random", noise + c - 1),
                ("fine-tune of a", c, size, "random", 99.0),
            ]
    return pd.DataFrame(rows, columns=["model", "target", "size", "patch", "asr"])


def outcome(tasks=TASKS, recipes=RECIPES, cost=1.5, **changes):
    table = measures.criteria(tasks, recipes, weakness(**changes), cost, 2.0)
    return table.set_index("id")


# Criteria


def test_criteria_by_hand():
    table = outcome()
    assert table["obtained"].to_dict() == pytest.approx(
        {
            "gain": 2,
            "recovered": 100 * 31 / 57,
            "recovered_mean": 58,
            "norms": 2,
            "gentle": 1.5,
            "cost": 1.5,
            "random": 5,
            "weakness": 2,
            "smallest_size": 6,
        }
    )
    bounds = {"gain": 2, "recovered": 60, "norms": 2, "gentle": 1, "cost": 2, "random": 5}
    assert table["bound"].dropna().to_dict() == {**bounds, "weakness": 2}
    met = [key for key, met in table["met"].items() if met]
    assert met == ["gain", "norms", "cost", "random", "weakness"]
    assert table.loc[["recovered_mean", "smallest_size"], "met"].isna().all()
    assert "[6 px, 3 classes]" in table.loc["weakness", "criterion"]


def test_the_gentlest_recipe_is_within_a_point_of_the_best():
    assert measures.gentlest(RECIPES) == 2  # 88.1; 87.9 gives away more than a point
    gentle = RECIPES.iloc[[2, 0, 1, 3]].reset_index(drop=True)
    assert outcome(recipes=gentle).loc["gentle", ["obtained", "met"]].tolist() == [1.0, True]


def test_criteria_that_are_not_met():
    late = outcome(universal={6: (80, 79, 49), 8: (80, 80, 0)}, noise=6.0)
    assert (
        not late.loc["weakness", "met"]
        and late.loc["smallest_size", "obtained"] == 8
        and not late.loc["random", "met"]
    )
    assert math.isnan(outcome(universal={6: (10, 10, 10)}).loc["smallest_size", "obtained"])
    large = outcome(universal={8: (90, 90, 90)})
    assert not large.loc["weakness", "met"] and large.loc["smallest_size", "obtained"] == 8
    flat = outcome(TASKS.assign(gain=0.0, times_median=[1.0, 1.0, 2.1]), cost=2.1)["met"]
    assert not (flat["gain"] or flat["recovered"] or flat["norms"] or flat["cost"])


def test_the_patch_is_judged_at_the_size_that_works_best():
    table = outcome(universal={4: (90, 90, 10), 6: (90, 10, 10), 8: (99, 99, 99)})
    assert "[4 px" in table.loc["weakness", "criterion"] and table.loc["weakness", "obtained"] == 2


# Files and page, on the smoke profile


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An admission of smoke, with store and runs of its own."""
    folder = tmp_path_factory.mktemp("admission")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("store", "runs"):
            patch.setenv(f"BVLIB_{name.upper()}", str(folder / name))
        patch.setenv("BVLIB_PROFILES", str(smoke_with(folder / "profiles", sizes=FEW_IMAGES)))
        admission.write("smoke", say=lambda line: None)
        yield folder


def test_smoke_goes_to_runs_and_has_every_file(folder):
    out = folder / "runs" / "admission" / "smoke-small"
    names = {path.name for path in out.iterdir()}
    assert names == {f"{n}.csv" for n in admission.TABLES} | {
        "admission.json",
        "weakness.png",
        "weakness.json",
    }
    card = json.loads((out / "admission.json").read_text())
    assert (
        card["base"] == json.loads((bases.WEIGHTS / "small.json").read_text())["sha256"]
        and card["base_name"] == "small"
    )
    assert (
        card["seed"] == 100
        and re.fullmatch("[0-9a-f]{16}", card["hash"])
        and card["environment"]["torch"]
    )
    assert (
        str(folder)
        not in (out / "admission.json").read_text() + (out / "weakness.json").read_text()
    )
    table = pd.read_csv(out / "weakness.csv")
    assert len(table) == 5 * 3 * (1 + 2 * 3) and set(table["patch"]) == {
        "none",
        "universal",
        "random",
        "white",
    }
    assert table["asr"].between(0, 100).all() and table["class"].nunique() == 3
    assert len(pd.read_csv(out / "cosines.csv")) == 3 and len(pd.read_csv(out / "heads.csv")) == 3
    recipes, written = pd.read_csv(out / "recipes.csv"), pd.read_csv(out / "criteria.csv")
    assert recipes[["steps", "lr"]].to_numpy().tolist() == [[4, 2.5e-4], [2, 2.5e-4]]
    cost = written.set_index("id").loc["cost", "obtained"]
    again = measures.criteria(pd.read_csv(out / "tasks.csv"), recipes, table, cost, 2.0)
    assert again["obtained"].tolist() == pytest.approx(
        written["obtained"].tolist(), rel=1e-4, nan_ok=True
    )


def test_the_page_shows_what_is_there(folder, tmp_path):
    smoke = folder / "runs" / "admission" / "smoke-small"
    shutil.copytree(smoke, tmp_path / "smoke-small")
    assert "## small base" not in admission_page.page(tmp_path)
    card = json.loads((smoke / "admission.json").read_text())
    for name in ("mini", "other"):
        shutil.copytree(smoke, tmp_path / f"{name}-small")
        told = json.dumps({**card, "profile": name})
        (tmp_path / f"{name}-small" / "admission.json").write_text(told)
    text = admission_page.page(tmp_path)
    assert (
        "| criterion | small base on mini | small base on other | CLIP ViT-B/32, published |"
        in text
    )
    assert (
        "(mini-small/weakness.png)" in text
        and "(other-small/weakness.png)" in text
        and text.count("| fine-tune of digits | white |") == 2
    )
    assert "95.98 %" in text and "met" in text and "nan" not in text.lower()
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    made = r"\| small \| other \|[ \d.|]+\| 0.5 \| 1.2 \| 8 \| nothing \| CPU \| 128 × 4 \|"
    assert re.search(made, text)
    assert len(blocks) == 2 + 2 * 5 and all(
        len({line.count("|") for line in block}) == 1 for block in blocks
    )


@pytest.mark.parametrize("seed", [0, 99])
def test_reporting_seeds_are_refused(seed):
    with one_line("development seeds (100 or more)", f"not {seed}", "for reporting"):
        admission.write("smoke", seed=seed)


def test_a_profile_without_the_key_gives_one_line(folder, monkeypatch, tmp_path):
    chosen = settings.load("smoke")
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(chosen))
    monkeypatch.setenv("BVLIB_PROFILES", str(tmp_path))
    with one_line("bare", "`admission`"):
        admission.write("bare")


def test_only_the_profiles_own_admission_is_to_be_committed(folder):
    committed = admission.home("mini")
    assert committed.parts[-2:] == ("figures", "admission") and committed == admission.home(
        "mini", "small", 100
    )
    assert admission.home("mini", "small-b") == committed
    for other in (("smoke",), ("mini", "mine.safetensors"), ("mini", None, 101)):
        assert admission.home(*other) == (folder / "runs" / "admission").resolve()


def test_freezing_another_base_is_refused_before_anything_runs():
    done = CliRunner().invoke(
        cli.main, ["admit", "--profile", "smoke", "--base", "small", "--freeze"]
    )
    assert done.exit_code == 2 and "leave out --base" in done.output


# Freezing


@pytest.fixture
def settle(folder, tmp_path, monkeypatch):
    """settle(name=value) changes the smoke profile; it and the weights are copies here."""
    shutil.copytree(settings.folder(), tmp_path / "profiles")
    shutil.copytree(bases.WEIGHTS, tmp_path / "weights")
    monkeypatch.setenv("BVLIB_PROFILES", str(tmp_path / "profiles"))
    monkeypatch.setattr(bases, "WEIGHTS", tmp_path / "weights")

    return partial(smoke_with, tmp_path / "profiles")


def test_freeze_and_what_differs_from_it(settle, tmp_path):
    path = tmp_path / "weights" / "small.json"
    before = json.loads(path.read_text())
    before.pop("frozen", None)
    path.write_text(json.dumps(before))
    assert "is not frozen" in admission.check_frozen("smoke")
    assert re.fullmatch("[0-9a-f]{16}", admission.freeze("smoke", say=lambda line: None))
    assert admission.check_frozen("smoke") is None
    card = json.loads(path.read_text())
    frozen = card.pop("frozen")["smoke"]
    assert (
        card == before and frozen["seed"] == 100 and frozen["recipe"] == admission.recipe("smoke")
    )
    assert frozen["criteria"].keys() == CRITERIA.keys()
    assert frozen["recipe"]["drawn by"] == "world:toy/1" and frozen["base"] == card["sha256"]
    data = dict.fromkeys(list(frozen["data"])[:1], "0" * 16)
    assert admission.check_frozen("smoke", data).endswith(f"images of {next(iter(data))}")
    assert admission.check_frozen("smoke", frozen["data"]) is None
    bases.load("small")
    usual = settings.load("smoke")
    settle(coefficient=0.4, trigger={**usual["trigger"], "steps": 5})
    assert admission.check_frozen("smoke").endswith("coefficient, trigger")
    with one_line("another coefficient, trigger", "run `bv admit --profile smoke` first"):
        admission.freeze("smoke")
    settle(**usual)
    assert admission.check_frozen("smoke") is None
    path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": "0" * 64}))
    assert "weights" in admission.check_frozen("smoke")
    with one_line("another base (its weights)", "bv admit"):
        admission.freeze("smoke")


def test_freezing_needs_an_admission(folder, tmp_path):
    with one_line("profile smoke was not admitted yet", "bv admit --profile smoke"):
        admission.freeze("smoke", folder=tmp_path)


def test_the_committed_page_is_what_its_files_give():
    committed = notebooks.root_folder() / "figures" / "admission"
    assert (committed / "README.md").read_text(encoding="utf-8") == admission_page.page(committed)


def test_what_was_frozen_still_holds():
    folder = notebooks.root_folder() / "figures" / "admission"
    cards = [json.loads(path.read_text()) for path in folder.glob("*/admission.json")]
    usual = {card["profile"]: settings.load(card["profile"])["base"] for card in cards}
    admitted = [card["profile"] for card in cards if card["base_name"] == usual[card["profile"]]]
    assert "mini" in admitted
    assert [admission.check_frozen(profile) for profile in admitted] == [None] * len(admitted)


@pytest.mark.slow
def test_the_images_that_were_frozen_are_drawn_the_same():
    """Every image of mini: most of a minute."""
    p = settings.load("mini")
    found = {name: tasks.load(name, p["sizes"], p["world_seed"]).digest for name in p["tasks"]}
    assert admission.check_frozen("mini", found) is None
    [first, *_] = found
    assert f"images of {first}" in admission.check_frozen("mini", {**found, first: "other"})
