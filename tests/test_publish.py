"""Publishing runs written by hand: what is copied, stacked, refused; the overview of all
profiles."""

import json

import nbformat
import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import write_profile

from bvlib.cli import main
from bvlib.core import versions
from bvlib.core.errors import BvError, MissingData
from bvlib.files.safe import read_json_if
from bvlib.report import overview, reference
from bvlib.report.expected import drift
from bvlib.report.page import claims_page, claims_table
from bvlib.report.publish import publish
from bvlib.run import settings
from bvlib.run.notebooks import notebooks_folder, out_folder
from bvlib.worlds import WEIGHTS

SECOND = {"base": "toy-b"}
NOW = (versions.recipe("training:finetune"),)
README = f"# Title\n\n{overview.BEGIN}\nold\n{overview.END}\n\nmore\n"


@pytest.fixture
def world(tmp_path, monkeypatch):
    for name in ("notebooks", "profiles"):
        (tmp_path / name).mkdir()
    write_profile(tmp_path / "profiles" / "mini.yaml", second_base="toy-b")
    write_profile(tmp_path / "profiles" / "real32.yaml", world="real32")
    (tmp_path / "README.md").write_text(README)
    monkeypatch.setenv("BVLIB_NOTEBOOKS", str(tmp_path / "notebooks"))
    monkeypatch.setenv("BVLIB_PROFILES", str(tmp_path / "profiles"))
    monkeypatch.setenv("BVLIB_RUNS", str(tmp_path / "runs"))
    return tmp_path


def how(profile, recipes=NOW, parameters=None):
    """By what a run is made, as its result and its cards tell."""
    content = {**settings.load(profile), **(parameters or {})}
    base = (read_json_if(WEIGHTS / f"{content['base']}.json") or {}).get("sha256")
    return {"recipes": list(recipes), "parameters": content, "base": base}


def write_run(
    seed,
    merged=60.0,
    profile="mini",
    parameters=None,
    recipes=NOW,
    table="what,asr\nNone,01.50\n",
    data="aa",
):
    """One notebook's outputs by hand: result, executed copy, a figure, a table."""
    made = how(profile, recipes, parameters) | {"data": {"digits": data}}
    out, name = out_folder(profile, seed, parameters), "01_badmerging"
    for part in ("figures", "tables"):
        (out / part).mkdir(parents=True, exist_ok=True)
        (out / part / "main.json").write_text(json.dumps({"notebook": name, **made}))
    (out / "figures" / "main.png").write_bytes(b"png")
    (out / "figures" / "main.csv").write_text("x\n1\n")
    (out / "tables" / "main.csv").write_text(table)
    headline = {
        "ASR badnets, alone": 99.0,
        "ASR badnets, merged": 30.0,
        "ASR badmerging-on, merged": merged,
        "undefined": None,
    }
    (out / f"{name}.json").write_text(
        json.dumps(
            {
                "headline": {
                    k: {"value": v, "low": None, "high": None, "unit": "%"}
                    for k, v in headline.items()
                },
                "measures": {"badmerging_minus_badnets": merged - 30},
                **made,
                "seconds": 1.0,
            }
        )
    )
    for folder in (out, notebooks_folder()):
        nbformat.write(nbformat.v4.new_notebook(), folder / f"{name}.ipynb")


def write_long_run(seed, name="07_long", asr=80.0):
    """The outputs of a long notebook, and the notebook itself."""
    out = out_folder("mini", seed)
    (out / "tables").mkdir(parents=True, exist_ok=True)
    (out / "tables" / "long.json").write_text(json.dumps({"notebook": name, **how("mini")}))
    (out / "tables" / "long.csv").write_text(f"asr\n{asr}\n")
    (out / f"{name}.json").write_text(
        json.dumps(
            {
                "headline": {"ASR long": {"value": asr, "low": None, "high": None, "unit": "%"}},
                "measures": {"off_asr": asr},
                **how("mini"),
                "seconds": 1.0,
            }
        )
    )
    long = nbformat.v4.new_notebook(metadata={"bvlib": {"long": True}})
    nbformat.write(long, out / f"{name}.ipynb")
    nbformat.write(long, notebooks_folder() / f"{name}.ipynb")


def published(world, profile="mini"):
    return sorted(
        str(path.relative_to(world / "figures" / profile))
        for path in (world / "figures" / profile).rglob("*.*")
    )


def test_development_seeds_are_never_published(world):
    for seed in (0, 1, 100):
        write_run(seed)
    folder = publish("mini")
    assert set(pd.read_csv(folder / "seeds.csv")["seed"]) == {0, 1}
    assert (
        "seeds 0, 1 " in (folder / "report.md").read_text()
        and "100,main" not in (folder / "by_seed" / "main.csv").read_text()
    )


def test_a_long_notebook_may_lack_in_a_seed_and_is_not_compared_by_check(world):
    for seed in (0, 1):
        write_run(seed)
    write_long_run(0)
    folder = publish("mini")
    rows = pd.read_csv(folder / "seeds.csv")
    assert set(rows[rows["name"] == "off_asr"]["seed"]) == {0}
    assert pd.read_csv(folder / "by_seed" / "long.csv").to_dict("list") == {
        "seed": [0],
        "asr": [80.0],
    }
    expected = json.loads((folder / "expected.json").read_text())
    assert "ASR long" not in expected["headline"] and "off_asr" not in expected["measures"]
    write_long_run(0, asr=1.0)
    assert drift("mini") == []
    write_run(1, data="bb")
    with pytest.raises(BvError, match="differ in the data of 01_badmerging"):
        publish("mini")


def test_the_second_adversary_gets_its_rows(world):
    write_profile(world / "profiles" / "mini.yaml", second_adversary="letters")
    write_run(0)
    write_run(0, merged=20.0, parameters={"adversary": "letters"})
    folder = publish("mini")
    rows = pd.read_csv(folder / "second_adversary.csv")
    assert set(rows["adversary"]) == {"letters"} and 20.0 in set(rows["value"])
    assert "Headline with a second adversary (letters)" in (folder / "report.md").read_text()
    for stacked in ("second_adversary", "by_seed"):
        assert pd.read_csv(folder / stacked / "main.csv").columns[0] == "seed"


def test_claims_are_read_from_seeds_of_ten_and_more_and_pictures_show_seed_zero(world):
    for seed in (0, 10, 11):
        write_run(seed, merged=50.0 + seed)
    folder = publish("mini")
    assert set(pd.read_csv(folder / "seeds.csv")["seed"]) == {0, 10, 11}
    [found] = overview.summaries().values()
    assert found["seeds"] == [10, 11]
    assert found["headline"]["ASR badmerging-on, merged"]["values"] == [60.0, 61.0]
    expected = json.loads((folder / "expected.json").read_text())
    assert expected["headline"]["ASR badmerging-on, merged"]["value"] == 50.0
    told = (folder / "report.md").read_text()
    assert "seeds 10, 11" in told and "60.0, 61.0" in told


def test_what_was_drawn_by_a_notebook_that_was_not_run_stays(world):
    for seed in (0, 1):
        write_run(seed)
        write_long_run(seed)
    folder = publish("mini")
    for seed in (0, 1):
        for left in out_folder("mini", seed).rglob("*long*"):
            left.unlink()
        write_run(seed, table="what,asr\nNone,02.50\n")
    (folder / "gone.json").write_text(json.dumps({"notebook": "01_badmerging"}))
    (folder / "gone.png").write_bytes(b"png")
    publish("mini")
    there = published(world)
    assert "tables/long.csv" in there and "by_seed/long.csv" in there
    assert "notebooks/07_long.ipynb" in there and "gone.png" not in there
    assert "02.50" in (folder / "by_seed" / "main.csv").read_text()
    assert set(pd.read_csv(folder / "seeds.csv").query("name == 'off_asr'")["seed"]) == {0, 1}


def test_an_executed_notebook_has_the_prose_of_now_where_its_code_is_the_same(world):
    def notebook(prose, code):
        v4 = nbformat.v4
        return v4.new_notebook(cells=[v4.new_markdown_cell(prose), v4.new_code_cell(code)])

    def shown():
        executed = publish("mini") / "notebooks" / "01_badmerging.ipynb"
        return [cell.source for cell in nbformat.read(executed, 4).cells]

    write_run(0)
    executed = notebook("old words", "x = 1")
    given = nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["injected-parameters"]})
    executed.cells.insert(1, given)
    nbformat.write(executed, out_folder("mini", 0) / "01_badmerging.ipynb")
    for code, words in (("x = 1", "new words"), ("x = 2", "old words")):
        nbformat.write(notebook("new words", code), notebooks_folder() / "01_badmerging.ipynb")
        assert shown() == [words, "seed = 0", "x = 1"]


def test_what_a_notebook_drew_before_it_stopped_is_left_out(world):
    write_run(0)
    write_long_run(0)
    (out_folder("mini", 0) / "07_long.json").unlink()
    (out_folder("mini", 0) / "07_long.ipynb").unlink()
    folder = publish("mini")
    assert (folder / "main.csv").is_file() and not list(folder.rglob("*long*"))


def test_one_seed_is_copied(world):
    with pytest.raises(MissingData, match="no run of profile mini with seed 0"):
        publish("mini")
    write_run(0)
    said = []
    folder = publish("mini", say=said.append)
    assert published(world) == [
        "by_seed/main.csv",
        "expected.json",
        "main.csv",
        "main.json",
        "main.png",
        "notebooks/01_badmerging.ipynb",
        "report.md",
        "seeds.csv",
        "tables/main.csv",
        "tables/main.json",
    ]
    assert said == [
        "second base left out for seeds 0: `bv run --profile mini --seeds 0 -p base=toy-b`"
    ]
    assert pd.read_csv(folder / "seeds.csv").columns.to_list() == [
        "seed",
        "notebook",
        "part",
        "name",
        "value",
        "unit",
        "made",
    ]


def test_several_seeds_are_stacked_as_they_stand(world):
    for seed in (0, 1):
        write_run(seed, table=f"what,asr\nNone,01.5{seed}\n")
    write_run(2, table='what,asr,new\n"a, b",100,x\n')
    folder = publish("mini")
    assert (
        folder / "by_seed" / "main.csv"
    ).read_text() == 'seed,what,asr,new\n0,None,01.50,\n1,None,01.51,\n2,"a, b",100,x\n'
    told = (folder / "report.md").read_text()
    assert "committed reference: seeds 0, 1, 2" in told and "60.0, 60.0, 60.0" in told
    assert (
        json.loads((folder / "expected.json").read_text())["headline"]["undefined"]["value"] is None
    )


def forget(seed, name="01_badmerging", parameters=None):
    """As in a new clone: this run is not here."""
    (out_folder("mini", seed, parameters) / f"{name}.json").unlink()


def test_a_study_is_published_in_pieces(world):
    for seed in (0, 1):
        write_run(seed, 60.0 + seed)
    folder = publish("mini")
    for seed in (0, 1):
        forget(seed)
    write_run(2, 62.0)
    write_long_run(0)
    publish("mini")
    rows = pd.read_csv(folder / "seeds.csv")
    merged = rows[rows["name"] == "ASR badmerging-on, merged"]
    assert dict(zip(merged["seed"], merged["value"])) == {0: 60.0, 1: 61.0, 2: 62.0}
    assert set(rows[rows["name"] == "off_asr"]["seed"]) == {0}
    assert [*rows["seed"]] == sorted(rows["seed"])
    stacked = pd.read_csv(folder / "by_seed" / "main.csv")
    assert [*stacked["seed"]] == [0, 1, 2]
    assert (folder / "main.png").is_file() and (folder / "tables" / "long.csv").is_file()
    told = (folder / "report.md").read_text()
    assert "60.0, 61.0, 62.0" in told
    expected = json.loads((folder / "expected.json").read_text())
    assert expected["headline"]["ASR badmerging-on, merged"]["value"] == 60.0

    once = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for seed in (0, 1):
        write_run(seed, 60.0 + seed)
    publish("mini")  # in pieces or at once: the same
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == once


def test_a_piece_takes_the_place_of_the_committed_one(world):
    for seed in (0, 1):
        write_run(seed, 60.0)
    publish("mini")
    forget(0)
    write_run(1, 70.0)
    folder = publish("mini")
    rows = pd.read_csv(folder / "seeds.csv").query("name == 'ASR badmerging-on, merged'")
    assert [*rows["value"]] == [60.0, 70.0]


def test_what_awaits_redraw_stays_and_is_told(world, monkeypatch):
    for seed in (0, 1):
        write_run(seed)
        write_run(seed, parameters=SECOND)
    folder = publish("mini")
    second = (folder / "second_base.csv").read_bytes()
    for seed in (0, 1):
        forget(seed)
        forget(seed, parameters=SECOND)
    monkeypatch.setitem(versions.VERSIONS, "training:finetune", 99)
    write_long_run(0)
    long = out_folder("mini", 0) / "07_long.json"
    now = {**json.loads(long.read_text()), "recipes": ["training:finetune/99"]}
    long.write_text(json.dumps(now))
    publish("mini")
    rows = pd.read_csv(folder / "seeds.csv")
    assert set(zip(rows["notebook"], rows["seed"])) == {
        ("01_badmerging", 0),
        ("01_badmerging", 1),
        ("07_long", 0),
    }
    assert "training:finetune is at 99" in (folder / "report.md").read_text()
    assert (folder / "second_base.csv").read_bytes() == second
    assert "ASR badnets, merged" in (folder / "expected.json").read_text()
    told = CliRunner().invoke(main, ["report", "--profile", "mini", "--check"]).stdout
    assert "no drift from the committed values; not compared, as they await redraw: 01_bad" in told


def test_a_run_that_was_overtaken_is_left_out_and_said(world):
    write_run(0)
    folder = publish("mini")
    before = (folder / "seeds.csv").read_text()
    write_run(0, 10.0, recipes=("training:finetune/1",))
    write_long_run(0)
    said = []
    publish("mini", say=said.append)
    now = versions.recipe("training:finetune").partition("/")[2]
    old = f"01_badmerging of seed 0 left out: since it was run, training:finetune is at {now}"
    assert said[0] == old and (folder / "seeds.csv").read_text().startswith(before)


@pytest.mark.parametrize("seed, lacks", [(1, "seed 0, of 07_long"), (0, "seed 0: make")])
def test_seed_zero_of_each_notebook_comes_first(world, seed, lacks):
    if seed:
        write_run(0)
        publish("mini")
        write_long_run(1)
    with pytest.raises(MissingData, match=f"no run of profile mini with {lacks}"):
        publish("mini")


def test_committed_seeds_are_not_dropped_silently(world):
    for seed in (0, 1, 2):
        write_run(seed)
    folder = publish("mini")
    for seed in (1, 2):
        forget(seed)
    write_run(0, data="bb")
    before = published(world)
    with pytest.raises(
        BvError,
        match="committed seeds 1,2 of 01_badmerging were made in another way: `bv run 01 --profile "
        "mini --seeds 1,2`, or .*--replace",
    ):
        publish("mini")
    assert published(world) == before
    assert CliRunner().invoke(main, ["publish", "--replace"]).exit_code == 0
    assert set(pd.read_csv(folder / "seeds.csv")["seed"]) == {0}
    assert set(pd.read_csv(folder / "by_seed" / "main.csv")["seed"]) == {0}


def test_rows_of_an_earlier_form_stay_until_their_notebook_is_run(world):
    for seed in (0, 1):
        write_run(seed)
    folder = publish("mini")
    old = pd.read_csv(folder / "seeds.csv", dtype=str).drop(columns="made")
    old.to_csv(folder / "seeds.csv", index=False)
    forget(1)
    with pytest.raises(BvError, match="committed seeds 1 of 01_badmerging were made in another"):
        publish("mini")
    forget(0)
    write_long_run(0)
    publish("mini")
    assert set(pd.read_csv(folder / "seeds.csv")["notebook"]) == {"01_badmerging", "07_long"}


@pytest.mark.parametrize(
    "part, other",
    [
        ("recipes", ["training:finetune/0"]),
        ("parameters", {"alpha": 6.0, "seed": 1}),
        ("base", "ff"),
        ("data", {"digits": "ff"}),
    ],
)
def test_runs_that_differ_in_more_than_their_seed_are_not_alike(part, other):
    from bvlib.report import pieces

    one = {
        "notebook": "01_x",
        "recipes": ["training:finetune/1"],
        "parameters": {"alpha": 5.0, "seed": 0},
        "base": "aa",
        "data": {"digits": "aa"},
        "seconds": 1.0,
    }
    again = {**one, "parameters": {"alpha": 5.0, "seed": 1}, "seconds": 2.0}
    pieces.check_alike({0: [one], 1: [again]}, "so")
    assert pieces.made(one) == pieces.made(again)
    changed = {**again, part: other}
    assert pieces.made(changed) != pieces.made(one)
    with pytest.raises(BvError, match=f"seed-1 and seed-0 differ in the {part} of 01_x: .*, so"):
        pieces.check_alike({0: [one], 1: [changed]}, "so")


def test_seeds_of_other_code_are_not_mixed(world):
    write_run(0)
    write_run(1, data="bb")
    with pytest.raises(
        BvError, match="seed-1 and seed-0 differ in the data of 01_badmerging.*--seeds 0,1`"
    ):
        publish("mini")
    assert not (world / "figures").exists()


def test_the_second_base_gets_its_rows(world):
    for seed in (0, 1):
        write_run(seed, 60 + seed)
        write_run(seed, 40 + seed, parameters=SECOND)
    write_run(7, 0.0, parameters=SECOND)  # a seed that the first base lacks
    folder = publish("mini")
    rows = pd.read_csv(folder / "second_base.csv")
    assert rows.columns.to_list() == ["base", *reference.COLUMNS]
    assert set(rows["base"]) == {"toy-b"} and set(rows["seed"]) == {0, 1}
    assert "Headline on a second base (toy-b)" in (folder / "report.md").read_text()
    forget(1, parameters=SECOND)
    publish("mini")
    assert set(pd.read_csv(folder / "second_base.csv")["seed"]) == {0, 1}
    write_run(0, parameters=SECOND, data="bb")
    with pytest.raises(
        BvError,
        match="committed seeds 1 of 01_badmerging were made in another way: `bv run 01 --profile "
        "mini --seeds 1 -p base=toy-b`",
    ):
        publish("mini")
    publish("mini", replace=True)
    assert set(pd.read_csv(folder / "second_base.csv")["seed"]) == {0}


def test_another_second_base_takes_the_place_of_the_former_and_is_told(world):
    write_run(0)
    write_run(0, parameters=SECOND)
    folder = publish("mini")
    (folder / "second_base" / "of_another_notebook.csv").write_text("seed,x\n0,1\n")
    write_profile(world / "profiles" / "mini.yaml", second_base="small-b")
    said = []
    write_run(0)
    write_run(0, 20.0, parameters={"base": "small-b"})
    publish("mini", say=said.append)
    assert "second_base of toy-b left out: it is small-b now" in said
    assert set(pd.read_csv(folder / "second_base.csv")["base"]) == {"small-b"}
    assert [path.name for path in (folder / "second_base").iterdir()] == ["main.csv"]


def test_the_overview_of_one_profile_and_of_two(world):
    for seed in (0, 1, 2):
        write_run(seed, 60.0 + seed)
    publish("mini")
    rows = pd.read_csv(world / "figures" / "overview.csv")
    pd.testing.assert_frame_equal(rows, overview.asr_rows(overview.summaries()), check_dtype=False)
    assert set(rows["profile"]) == {"mini"} and set(rows["what"]) == {
        "alone",
        "merged",
    }
    assert rows.query("attack == 'badmerging-on'")["asr"].to_list() == [60.0, 61.0, 62.0]
    assert (world / "figures" / "overview.png").stat().st_size > 5000
    table = claims_table(overview.summaries())
    assert "| 31.0 points [28.5, 33.5]: same direction |" in table
    assert (world / "README.md").read_text() == README.replace("old\n", table)
    assert (world / "figures" / "claims.md").read_text() == claims_page(
        overview.summaries(), world / "figures"
    )

    write_run(0, profile="real32")
    publish("real32")
    card = json.loads((world / "figures" / "overview.json").read_text())
    assert {name: part["seeds"] for name, part in card["profiles"].items()} == {
        "mini": [0, 1, 2],
        "real32": [0],
    }
    assert (
        "same direction | 30.0 points (one seed): inconclusive |"
        in (world / "README.md").read_text()
    )


def test_a_readme_without_the_two_lines_is_left_alone_and_said(world):
    (world / "README.md").write_text(f"no end\n{overview.BEGIN}\n")
    write_run(0)
    said = []
    publish("mini", say=said.append)
    assert said[-1].endswith(f"README.md lacks the lines {overview.BEGIN} and {overview.END}")
    assert (world / "README.md").read_text() == f"no end\n{overview.BEGIN}\n"


def test_nothing_committed_gives_no_overview(world):
    overview.write()
    assert not (world / "figures").exists() and reference.committed("mini") == {}
