"""The committed figures and tables: drawn by the notebooks and the code that are here now."""

import json

import pandas as pd
import pytest

from bvlib import claims, notebook, profiles

FOLDERS = sorted(path.parent for path in (notebook.root_folder() / "figures").glob("*/expected.json"))


def cards(folder):
    return [path for path in sorted([*folder.glob("*.json"), *folder.glob("tables/*.json")]) if path.name != "expected.json"]


def test_the_default_profile_is_committed():
    assert "mini" in [folder.name for folder in FOLDERS]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_figure_and_table_comes_from_the_present_source(folder):
    now = {name: notebook.find([name])[0].source_hash() for name in notebook.available()}
    settings = profiles.load(folder.name)
    stale = set()
    for path in cards(folder):
        card = json.loads(path.read_text(encoding="utf-8"))
        kept = {k: v for k, v in card["parameters"].items() if k in settings}
        if card["source"] != now[card["notebook"]] or kept != settings:
            stale.add(f"{path.relative_to(folder)} ({card['notebook']})")
    assert not stale, "run `bv run` and `bv publish` again: these were drawn by other code or settings"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_figure_has_its_data_and_every_notebook_its_copy(folder):
    pictures = {path.stem for path in folder.glob("*.png")}
    assert pictures and pictures == {path.stem for path in folder.glob("*.csv")} - {"seeds"}
    assert pictures == {path.stem for path in cards(folder) if path.parent == folder}
    assert sorted(path.stem for path in (folder / "notebooks").glob("*.ipynb")) == notebook.available()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_rows_agree_with_the_expected_values(folder):
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    rows = pd.read_csv(folder / "seeds.csv")
    rows = rows[rows["seed"] == 0].drop_duplicates(["part", "name"]).set_index(["part", "name"])["value"]
    for part in ("headline", "measures"):
        for name, entry in expected[part].items():
            if entry["value"] is not None:
                assert rows[part, name] == pytest.approx(entry["value"], abs=1e-3), name
    assert {claim.measure for claim in claims.CLAIMS} <= set(expected["measures"])
