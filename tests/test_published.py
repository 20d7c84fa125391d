"""The committed figures and tables: drawn by the notebooks and the code that are here now."""

import json
import re

import pandas as pd
import pytest

from bvlib.core import versions
from bvlib.report import claims, overview, page, reference, summary
from bvlib.run import notebooks, settings
from bvlib.worlds import bases

FIGURES = notebooks.root_folder() / "figures"
FOLDERS = sorted(path.parent for path in FIGURES.glob("*/expected.json"))


def cards(folder):
    return [
        path
        for path in sorted([*folder.glob("*.json"), *folder.glob("tables/*.json")])
        if path.name != "expected.json"
    ]


def test_the_default_profile_is_committed_with_the_headline_on_five_seeds():
    rows = pd.read_csv(FIGURES / "mini" / "seeds.csv")
    seeds = {name[:2]: set(part["seed"]) for name, part in rows.groupby("notebook")}
    assert all(seeds[name] == {0, *range(10, 15)} for name in ("00", "01", "03", "05"))
    assert all(seeds[name] >= {0, 10, 11, 12} for name in ("02", "04"))


@pytest.mark.parametrize("profile", ["smoke", "mini", "real32"])
def test_the_bases_that_a_profile_names_are_shipped(profile):
    chosen = settings.load(profile)
    assert {chosen[key] for key in ("base", "second_base", "other_base") if key in chosen} <= set(
        bases.shipped()
    )


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_figure_and_table_tells_what_made_it(folder):
    """Recipes with versions, parameters, base, data; what has moved on since awaits redraw."""
    for path in cards(folder):
        card = json.loads(path.read_text(encoding="utf-8"))
        assert f"notebook:{card['notebook']}" in {r.rpartition("/")[0] for r in card["recipes"]}, (
            path
        )
        assert all(re.fullmatch(r"[a-z:_0-9-]+/\w+", r) for r in card["recipes"]), path
        assert re.fullmatch("[0-9a-f]{64}", card["base"]) and card["data"] and card["parameters"]
    waiting = reference.awaiting(folder.name)
    assert set(waiting) <= set(notebooks.available()) and all(waiting.values())


def test_a_raised_recipe_makes_figures_await_redraw_and_is_told_in_the_changelog(monkeypatch):
    said = "merging:surgery is at 99"
    before = reference.awaiting("mini")
    monkeypatch.setitem(versions.VERSIONS, "merging:surgery", 99)
    waiting = reference.awaiting("mini")
    assert said in waiting["06_badmerging_in_full"]
    assert waiting.get("00_setup_and_tasks") == before.get("00_setup_and_tasks")
    assert said in summary.as_markdown(summary.gather("mini"))


def test_new_weights_of_a_base_make_figures_await_redraw(monkeypatch, tmp_path):
    said = "base small has other weights"
    content = {**settings.load("mini"), "base": "small"}
    card = {"recipes": [], "notebook": "01_x", "base": "0" * 64, "parameters": content}
    (tmp_path / "figure.json").write_text(json.dumps(card))
    monkeypatch.setattr(settings, "load", lambda name: content)
    monkeypatch.setattr(reference, "folder", lambda profile: tmp_path)
    assert reference.awaiting("mini") == {"01_x": [said]}
    card["base"] = json.loads((bases.WEIGHTS / "small.json").read_text())["sha256"]
    (tmp_path / "figure.json").write_text(json.dumps(card))
    assert reference.awaiting("mini") == {}


def test_every_raised_recipe_is_named_in_the_changelog():
    told = (FIGURES.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    assert [name for name in versions.VERSIONS if f"`{versions.recipe(name)}`" not in told] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_figure_has_its_data_and_every_notebook_its_copy(folder):
    pictures = {path.stem for path in folder.glob("*.png")}
    assert pictures and pictures == {path.stem for path in folder.glob("*.csv")} - {
        "seeds",
        *reference.SECONDS.values(),
    }
    assert pictures == {path.stem for path in cards(folder) if path.parent == folder}
    there, wanted = (
        {path.stem for path in (folder / "notebooks").glob("*.ipynb")},
        {each.name for each in notebooks.find(None)},
    )
    assert (
        wanted <= there <= set(notebooks.available())
    )  # a long one may not be run yet: its claims then say so


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_executed_notebooks_name_no_folder_of_the_machine(folder):
    for path in (folder / "notebooks").glob("*.ipynb"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r'["\s](/(tmp|home|work|root|Users)/|[A-Z]:\\\\)', text), path.name
        assert f"runs/{folder.name}/seed-0" in text
        for link in re.findall(r'href=\\"([^"\\]+\.csv)\\"', text):
            assert (path.parent / link).is_file(), f"{path.name}: {link}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_rows_agree_with_the_expected_values(folder):
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    rows = pd.read_csv(folder / "seeds.csv")
    long = {each.name for each in notebooks.every() if each.long}
    rows = rows[(rows["seed"] == 0) & ~rows["notebook"].isin(long)]
    run = set(rows["notebook"])
    rows = rows.drop_duplicates(["part", "name"]).set_index(["part", "name"])["value"]
    values = {
        (part, name): entry["value"]
        for part in ("headline", "measures")
        for name, entry in expected[part].items()
    }
    assert set(rows.index) == set(values)
    for key, value in values.items():
        assert (
            pd.isna(rows[key]) if value is None else rows[key] == pytest.approx(value, abs=1e-3)
        ), key
    missing = {claim.measure for claim in claims.CLAIMS} - set(expected["measures"])
    by = measured_by()
    left = {measure for measure in missing if not by[measure] or by[measure] & run}
    assert left <= newer_than_committed(folder)


def newer_than_committed(folder):
    """Measures of claims whose figure was drawn by an earlier version of its notebook: they may
    have come with the later one."""
    drawn = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in cards(folder)}
    old = {
        name
        for name, card in drawn.items()
        if versions.recipe(f"notebook:{card['notebook']}") not in card["recipes"]
    }
    return {claim.measure for claim in claims.CLAIMS if claim.figure in old}


def measured_by():
    """{measure: the notebooks that give it, by their code or by any committed row}."""
    rows = pd.concat([pd.read_csv(path) for path in FIGURES.glob("*/seeds.csv")])
    told = rows[rows["part"] == "measures"].groupby("name")["notebook"].agg(set)
    code = {each.name: "".join(each.code) for each in notebooks.every()}
    return {
        claim.measure: told.get(claim.measure, set())
        | {name for name, text in code.items() if f"{claim.measure}=" in text}
        for claim in claims.CLAIMS
    }


def test_on_the_default_profile_every_claim_was_measured_if_its_notebook_was_run():
    rows = pd.read_csv(FIGURES / "mini" / "seeds.csv")
    run = set(rows["notebook"])  # of others what is drawn may be older
    by = measured_by()
    missing = set(by) - set(rows.loc[rows["part"] == "measures", "name"])
    assert [each for each in missing if by[each] & run] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_tables_by_seed_hold_the_tables_of_seed_zero(folder):
    rows = pd.read_csv(folder / "seeds.csv", dtype={"seed": str})
    seeds = {name: set(part["seed"]) for name, part in rows.groupby("notebook")}
    stacked = {
        path.name: pd.read_csv(path, dtype=str, keep_default_na=False)
        for path in (folder / "by_seed").glob("*.csv")
    }
    of_figures = {
        path.name: path
        for path in folder.glob("*.csv")
        if path.stem not in ("seeds", *reference.SECONDS.values())
    }
    of_seed_zero = of_figures | {path.name: path for path in (folder / "tables").glob("*.csv")}
    assert set(stacked) == set(of_seed_zero)
    for name, table in stacked.items():
        alone = pd.read_csv(of_seed_zero[name], dtype=str, keep_default_na=False).rename(
            columns={"seed": "seed (column)"}
        )
        zero = table[table["seed"] == "0"].drop(columns="seed").reset_index(drop=True)
        card = json.loads(of_seed_zero[name].with_suffix(".json").read_text(encoding="utf-8"))
        drawn = seeds.get(card["notebook"], set(table["seed"]))  # or before, and awaits redraw
        assert set(table["seed"]) == drawn and table.columns[0] == "seed", name
        pd.testing.assert_frame_equal(zero[alone.columns], alone)


@pytest.mark.parametrize(
    "parameter, notebooks",
    [
        ("base", {"01_badmerging"}),
        ("adversary", {"01_badmerging", "06_badmerging_in_full", "07_badmerging_ablations"}),
    ],
)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_second_base_and_adversary_are_those_that_the_profile_names(
    folder, parameter, notebooks
):
    key = reference.SECONDS[parameter]
    named = settings.load(folder.name).get(key)
    there = (folder / f"{key}.csv").is_file()
    assert there == bool(named) or (
        parameter == "adversary" and not there
    )  # a second adversary may not be run yet
    if not there:
        return
    rows, first = pd.read_csv(folder / f"{key}.csv"), pd.read_csv(folder / "seeds.csv")
    assert set(rows[parameter]) == {named}
    assert set(rows["seed"]) <= set(first["seed"]) and set(rows["name"]) <= set(first["name"])
    assert set(rows["notebook"]) >= notebooks
    if parameter == "adversary":
        for name, of in (
            ("main", "01"),
            ("main_in_full", "06"),
            ("off_targets", "06"),
            ("ablations", "07"),
            ("neural_cleanse", "07"),
        ):
            seeds = set(rows["seed"][rows["notebook"].str.startswith(of)])
            assert set(pd.read_csv(folder / key / f"{name}.csv")["seed"]) == seeds, name


def test_the_overview_agrees_with_the_committed_seeds():
    now = overview.asr_rows(overview.summaries())
    pd.testing.assert_frame_equal(pd.read_csv(FIGURES / "overview.csv"), now, check_dtype=False)
    assert set(
        json.loads((FIGURES / "overview.json").read_text(encoding="utf-8"))["profiles"]
    ) == set(overview.summaries())


def test_the_claims_in_the_readme_are_those_of_the_committed_seeds():
    of = overview.summaries()
    assert (FIGURES / "claims.md").read_text(encoding="utf-8") == page.claims_page(of, FIGURES)
    _, _, rest = (
        (notebooks.root_folder() / "README.md")
        .read_text(encoding="utf-8")
        .partition(overview.BEGIN)
    )
    assert rest.partition(overview.END)[0] == f"\n{page.claims_table(of)}"


def test_every_claim_has_a_figure_that_is_committed_or_drawn_by_a_notebook():
    code = "\n".join(cell for each in notebooks.every() for cell in each.code)
    for claim in claims.CLAIMS:
        there = (FIGURES / "mini" / f"{claim.figure}.png").is_file()
        assert claim.figure and (there or f'lab.figure("{claim.figure}"' in code), claim.id
    for table in {claim.table for claim in claims.CLAIMS} - {""}:
        assert (
            FIGURES / "mini" / "tables" / f"{table}.csv"
        ).is_file() or f'lab.table("{table}"' in code, table


def test_every_link_of_the_page_of_claims_leads_somewhere():
    page = (FIGURES / "claims.md").read_text(encoding="utf-8")
    links = re.findall(r'\]\(([^)]+)\)|(?:href|src)="([^"]+)"', page)
    for link in {first or second for first, second in links}:
        assert (
            f'<a id="{link[1:]}">' in page if link.startswith("#") else (FIGURES / link).is_file()
        ), link
