"""The report and the claims on runs written by hand: intervals, statuses, seconds, the committed
reference, drift."""

import json
import math
import shutil

import pytest
from click.testing import CliRunner
from helpers import write_profile

from bvlib.cli import main
from bvlib.core.errors import BvError, MissingData
from bvlib.report import pieces, reference, results, summary
from bvlib.report.expected import drift, write_expected
from bvlib.report.tables import write_csv
from bvlib.run.notebooks import out_folder


@pytest.fixture
def world(tmp_path, monkeypatch):
    for name in ("notebooks", "profiles"):
        (tmp_path / name).mkdir()
    write_profile(tmp_path / "profiles" / "tiny.yaml")
    monkeypatch.setenv("BVLIB_NOTEBOOKS", str(tmp_path / "notebooks"))
    monkeypatch.setenv("BVLIB_PROFILES", str(tmp_path / "profiles"))
    monkeypatch.setenv("BVLIB_RUNS", str(tmp_path / "runs"))
    return tmp_path


def write_run(
    world,
    seed,
    notebook="01_badmerging",
    headline=None,
    measures=None,
    artefacts=(),
    own=None,
    folder=None,
):
    out = world / "runs" / "tiny" / (folder or f"seed-{seed}")
    (out / ".records").mkdir(parents=True, exist_ok=True)
    values = {
        name: {
            "value": v,
            "low": v - 2 if v is not None else None,
            "high": v + 2 if v is not None else None,
            "unit": "%",
        }
        for name, v in (headline or {}).items()
    }
    (out / f"{notebook}.json").write_text(
        json.dumps(
            {
                "notebook": notebook,
                "profile": "tiny",
                "seed": seed,
                "parameters": {},
                "headline": values,
                "measures": measures or {},
                "seconds": 20.0,
                "artefacts": list(artefacts),
            }
        )
    )
    if own is not None:
        (out / ".records" / f"{notebook}.json").write_text(json.dumps({"own": own}))


def bv(*args):
    return CliRunner().invoke(main, ["report", "--profile", "tiny", *args])


# Gathering


def test_without_runs_everything_is_not_run(world):
    gathered = json.loads(bv("--json").stdout)
    assert gathered["seeds"] == [] and gathered["headline"] == {} and gathered["seconds"] == {}
    assert {c["status"] for c in gathered["claims"]} == {"not run"}
    assert {"id", "expected", "obtained", "low", "high", "status"} <= set(gathered["claims"][0])
    assert "no run yet" in bv().stdout
    result = CliRunner().invoke(main, ["report", "--profile", "tyni"])
    assert result.exit_code == 2
    assert result.stderr.startswith("bv: unknown profile 'tyni': did you mean 'tiny'?")


def test_one_seed_has_its_interval_over_images(world):
    write_run(
        world,
        0,
        headline={"clean_accuracy": 70.0, "undefined": None},
        measures={"sbv_minus_single": 9.0},
    )
    write_run(world, 0, headline={"clean_accuracy": 1.0}, folder="seed-0+12345678")
    gathered = json.loads(bv("--json").stdout)
    assert gathered["headline"]["clean_accuracy"] == {
        "mean": 70.0,
        "low": 68.0,
        "high": 72.0,
        "unit": "%",
        "values": [70.0],
    }
    assert gathered["headline"]["undefined"]["mean"] is None
    [sbv] = [c for c in gathered["claims"] if c["id"] == "sbv-beats-single-at-equal-norm"]
    assert (sbv["obtained"], sbv["low"], sbv["status"]) == (9.0, None, "inconclusive")


def test_several_seeds_have_a_t_interval(world):
    for seed, value in enumerate([10.0, 12.0, 14.0]):
        write_run(
            world, seed, headline={"clean_accuracy": value}, measures={"sbv_minus_single": value}
        )
    gathered = json.loads(bv("--json").stdout)
    half = 4.302653 * 2 / math.sqrt(3)
    assert gathered["seeds"] == [0, 1, 2]
    assert gathered["headline"]["clean_accuracy"]["low"] == pytest.approx(12 - half, abs=1e-4)
    [sbv] = [c for c in gathered["claims"] if c["id"] == "sbv-beats-single-at-equal-norm"]
    assert (sbv["status"], sbv["obtained"]) == ("same direction", 12.0)
    assert json.loads(bv("--json", "--seeds", "0,1").stdout)["seeds"] == [0, 1]
    assert (
        json.loads(bv("--json", "--seed", "2").stdout)["headline"]["clean_accuracy"]["mean"] == 14.0
    )
    for text in (bv().stdout, bv("--markdown").stdout):
        assert (
            "sbv-beats-single-at-equal-norm" in text
            and "inherent-in-base (designed in)" in text
            and "12.0 %" in text
        )
    path = summary.write("tiny")
    assert path.read_text() == summary.as_markdown(summary.gather("tiny"))
    assert json.loads(path.with_name("report.json").read_text())["seeds"] == [0, 1, 2]


def test_seconds_count_a_shared_result_once(world):
    base = {"key": "b", "path": "b", "seconds": 100.0, "elapsed": 100.0, "nested": {}}
    loaded = {**base, "elapsed": 0.1}
    attack = {
        "key": "a",
        "path": "a",
        "seconds": 30.0,
        "elapsed": 0.2,
        "nested": {"b": 100.0, "inner": 5.0},
    }
    write_run(world, 0, "00_setup", artefacts=[base], own=4.0)
    write_run(world, 0, "01_badmerging", artefacts=[loaded, attack], own=3.0)
    write_run(world, 0, "02_bv", artefacts=[attack])
    assert summary.gather("tiny")["seconds"] == {
        "00_setup": 104.0,
        "01_badmerging": 38.0,
        "02_bv": 19.8,
    }


def test_a_name_with_two_values_is_said(world, capsys):
    write_run(world, 0, "00_setup", measures={"ca_minus_ba": 1.0})
    write_run(world, 0, "01_badmerging", measures={"ca_minus_ba": 2.0})
    [utility] = [
        c for c in summary.gather("tiny")["claims"] if c["id"] == "badmerging-keeps-utility"
    ]
    assert utility["obtained"] == 1.0
    assert "ca_minus_ba differs between 00_setup and 01_badmerging" in capsys.readouterr().err
    # what is committed as expected, and what is compared with it, says so as well
    commit_runs()
    for act in (write_expected, drift):
        act("tiny")
        assert "ca_minus_ba differs between 00_setup and 01_badmerging" in capsys.readouterr().err


# The committed reference and the second base

SECOND = {"base": "toy-b"}


def commit(world, values, name="seeds.csv", **first):
    """A seeds.csv by hand: {seed: value} of one headline number and one measure."""
    head = "".join(f"{key}," for key in first) + "seed,notebook,part,name,value,unit\n"
    start = "".join(f"{value}," for value in first.values())
    rows = [
        f"{start}{seed},01_badmerging,headline,CA,{value},%\n{start}{seed},03_sbv,measures,sbv_minus_single,{value},points\n"
        for seed, value in values.items()
    ]
    path = world / "figures" / "tiny" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "".join(rows))
    return path


def commit_runs():
    """The runs' rows and expected values, as `bv publish` commits them."""
    write_csv(reference.rows_path("tiny"), results.per_seed("tiny"))
    write_expected("tiny")


def row(text, start):
    [line] = [
        line for line in text.splitlines() if line.startswith((f"| {start} |", f"| {start} ("))
    ]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_reference_is_shown_without_a_run(world):
    commit(world, {0: 78.6, 1: 80.1, 2: 77.9})
    gathered = json.loads(bv("--json").stdout)
    assert gathered["seeds"] == [] and gathered["reference"]["seeds"] == [0, 1, 2]
    assert gathered["reference"]["headline"]["CA"]["values"] == [78.6, 80.1, 77.9]
    text = bv("--markdown").stdout
    assert (
        "no run yet, make one with `bv run --profile tiny`; committed reference: seeds 0, 1, 2"
        in text
    )
    assert row(text, "name") == ["name", "reference", "interval", "seeds 0, 1, 2"]
    assert row(text, "CA") == ["CA", "78.9 %", "76.1 to 81.7", "78.6, 80.1, 77.9"]
    assert row(text, "claim") == [
        "claim",
        "reference status",
        "reference (interval)",
        "expected (paper, on CLIP)",
        "test",
    ]
    assert row(text, "sbv-beats-single-at-equal-norm")[1:3] == [
        "same direction",
        "78.9 (76.1 to 81.7)",
    ]


def test_your_runs_stand_beside_the_reference(world):
    commit(world, {0: 78.6, 1: 80.1, 2: 77.9})
    write_run(
        world, 5, headline={"CA": 70.0, "mine alone": 1.0}, measures={"sbv_minus_single": 9.0}
    )
    text = bv("--markdown").stdout
    assert text.startswith(
        "# Profile tiny, seed 5 (intervals over images, 95 %); committed reference: seeds 0, 1, 2"
    )
    assert row(text, "name")[1:] == ["yours", "interval", "reference", "interval", "seeds 0, 1, 2"]
    assert row(text, "CA")[1:] == [
        "70.0 %",
        "68.0 to 72.0",
        "78.9 %",
        "76.1 to 81.7",
        "78.6, 80.1, 77.9",
    ]
    assert row(text, "mine alone")[1:] == ["1.0 %", "-1.0 to 3.0", "-", "-", "-"]
    assert row(text, "sbv-beats-single-at-equal-norm")[1:5] == [
        "inconclusive",
        "9.0",
        "same direction",
        "78.9 (76.1 to 81.7)",
    ]
    assert "78.6, 80.1, 77.9" in bv().stdout
    alone = summary.as_markdown({**summary.gather("tiny"), "reference": None})
    assert row(alone, "CA") == ["CA", "70.0 %", "68.0 to 72.0"] and "reference" not in alone


def test_the_reference_alone_has_the_form_of_your_own_runs(world):
    commit(world, {0: 78.6, 1: 80.1, 2: 77.9})
    write_run(world, 5, headline={"CA": 70.0}, measures={"sbv_minus_single": 9.0})
    own, told = json.loads(bv("--json").stdout), json.loads(bv("--json", "--reference").stdout)
    assert told.keys() == own.keys() and (told["committed"], own["committed"]) == (True, False)
    assert {key: told[key] for key in ("seeds", "headline", "claims")} == own["reference"]
    assert told["seconds"] == {} and told["reference"] is None
    assert json.loads(bv("--json", "--reference", "--seeds", "0,2").stdout)["seeds"] == [0, 2]
    text = bv("--markdown", "--reference").stdout
    assert text.startswith("# Profile tiny, committed reference: seeds 0, 1, 2 (t-intervals")
    assert row(text, "CA") == ["CA", "78.9 %", "76.1 to 81.7", "78.6, 80.1, 77.9"]
    assert row(text, "sbv-beats-single-at-equal-norm")[1:3] == [
        "same direction",
        "78.9 (76.1 to 81.7)",
    ]
    assert "78.6, 80.1, 77.9" in bv("--reference").stdout
    assert "seed 1 (no intervals)" in bv("--reference", "--seed", "1").stdout
    assert "leave --reference out" in bv("--reference", "--check").stderr


def test_the_reference_alone_with_its_second_base(world):
    write_profile(world / "profiles" / "tiny.yaml", second_base="toy-b")
    assert "nothing committed of profile tiny: `bv publish" in bv("--reference").stderr
    commit(world, {0: 70, 1: 72})
    commit(world, {0: 50, 1: 52}, "second_base.csv", base="toy-b")
    write_run(world, 0, headline={"CA": 1.0}, folder=out_folder("tiny", 0, SECOND).name)
    second = json.loads(bv("--json", "--reference").stdout)["second_base"]
    assert (second["first"], second["headline"]["CA"]["mean"]) == ({"CA": 71.0}, 51.0)
    alone = json.loads(bv("--json", "--reference", "--seed", "1").stdout)["second_base"]
    assert (alone["seeds"], alone["first"]) == ([1], {"CA": 72.0})


def test_an_undefined_value_and_a_damaged_file(world):
    path = commit(world, {0: 78.6, 1: ""})
    entry = summary.gather("tiny")["reference"]["headline"]["CA"]
    assert (entry["values"], entry["mean"]) == ([78.6, None], 78.6)
    assert "| 78.6, - |" in bv("--markdown").stdout
    path.write_text("seed,name\nx,y\n")
    assert bv().exit_code == 2 and "seeds.csv is damaged" in bv().stderr


def test_the_second_base_is_compared_on_the_same_seeds(world):
    for seed in (0, 1, 2):
        write_run(world, seed, headline={"CA": 70.0 + seed})
    for seed in (0, 1):
        write_run(
            world, seed, headline={"CA": 50.0 + seed}, folder=out_folder("tiny", seed, SECOND).name
        )
    assert summary.gather("tiny")["second_base"] is None
    write_profile(world / "profiles" / "tiny.yaml", second_base="toy-b")
    second = summary.gather("tiny")["second_base"]
    assert (second["base"], second["seeds"], second["first"]) == ("toy-b", [0, 1], {"CA": 70.5})
    text = bv("--markdown").stdout
    block = text[text.index("## Headline on a second base (toy-b)") :]
    assert row(block[: block.index("## Claims")], "CA") == [
        "CA",
        "70.5 %",
        "50.5 %",
        "44.1 to 56.9",
        "50.0, 51.0",
    ]
    assert summary.gather("tiny", [1])["second_base"]["seeds"] == [1]


def test_the_committed_second_base_is_shown_without_a_run_of_it(world):
    write_profile(world / "profiles" / "tiny.yaml", second_base="toy-b")
    commit(world, {0: 70, 1: 72})
    commit(world, {0: 50, 1: 52}, "second_base.csv", base="toy-b")
    write_run(world, 0, headline={"CA": 1.0})
    second = summary.gather("tiny")["second_base"]
    assert (second["first"], second["headline"]["CA"]["mean"]) == ({"CA": 71.0}, 51.0)
    write_profile(world / "profiles" / "tiny.yaml", second_base="toy-c")
    assert summary.gather("tiny")["second_base"] is None


# Drift


def test_drift_from_the_committed_values(world):
    assert bv("--check").exit_code == 2
    write_run(
        world,
        0,
        headline={"clean_accuracy": 70.0, "undefined": None},
        measures={"sbv_minus_single": 9.0},
    )
    commit_runs()
    path = world / "figures" / "tiny" / "expected.json"
    expected = json.loads(path.read_text())
    assert expected["headline"]["clean_accuracy"] == {"value": 70.0, "unit": "%", "tolerance": 1.0}
    assert expected["measures"]["sbv_minus_single"] == {
        "value": 9.0,
        "unit": "points",
        "tolerance": 3.0,
    }
    assert bv("--check").exit_code == 0

    expected["measures"]["sbv_minus_single"]["tolerance"] = 0.5
    path.write_text(json.dumps(expected))
    write_run(
        world,
        0,
        headline={"clean_accuracy": 70.6, "undefined": None, "new": 1.0},
        measures={"sbv_minus_single": 9.6},
    )
    result = bv("--check")
    assert result.exit_code == 1
    assert result.stderr == (
        "bv: drift: measures sbv_minus_single: 9.60, committed 9.00 points (tolerance 0.5)\n"
    )

    write_run(world, 0, headline={"undefined": 3.0}, measures={"sbv_minus_single": 9.0})
    lines = drift("tiny")
    assert (
        len(lines) == 2
        and "clean_accuracy: missing" in lines[0]
        and "committed undefined" in lines[1]
    )

    commit_runs()
    kept = json.loads(path.read_text())
    assert kept["measures"]["sbv_minus_single"]["tolerance"] == 0.5
    assert "clean_accuracy" not in kept["headline"]
    write_expected("tiny", tolerance=1.0)
    assert json.loads(path.read_text())["measures"]["sbv_minus_single"]["tolerance"] == 1.0
    shutil.rmtree(out_folder("tiny", 0))
    with pytest.raises(MissingData, match="no run of profile tiny with seed 0"):
        drift("tiny")


def test_a_value_that_two_notebooks_give_is_that_of_the_first(world):
    for name in ("00_setup", "01_badmerging"):
        write_run(world, 0, name, measures={"ca_minus_ba": 1.0})
    commit_runs()
    for name in ("00_setup", "01_badmerging"):
        write_run(world, 0, name, measures={"ca_minus_ba": 50.0})
    assert len(drift("tiny", ["00_setup"])) == 1
    assert drift("tiny", ["01_badmerging"]) == []


def test_only_some_notebooks_are_compared(world):
    both = {"headline": {"clean_accuracy": 70.0}, "measures": {"sbv_minus_single": 9.0}}
    write_run(world, 0, **both)
    commit_runs()
    rows = commit(world, {0: 70.0})  # a headline number of 01, a measure of 03
    rows.write_text(rows.read_text().replace(",CA,", ",clean_accuracy,"))
    write_run(world, 0, headline={"clean_accuracy": 60.0})
    headline = "headline clean_accuracy: 60.00, committed 70.00 % (tolerance 1)"
    measure = "measures sbv_minus_single: missing, committed 9.00 points"
    assert drift("tiny") == [headline, measure]
    assert drift("tiny", ["01_badmerging"]) == [headline]
    assert drift("tiny", ["03_sbv"]) == [measure]
    assert bv("--check", "nothing-like-it").exit_code == 2
    assert "bv: notebooks are named for --check only: leave 01 out" in bv("01").stderr


@pytest.mark.parametrize(
    "read, change, reasons",
    [
        (["alpha"], {"alpha": 1.0}, ["setting alpha has changed"]),
        (["alpha"], {"density": 0.5}, []),
        (["alpha"], {"second_base": "toy-b"}, []),
        (["alpha"], {"ties_counts": "saved"}, ["setting ties_counts has changed"]),  # a new one
        (["alpha", "density"], {"density": None}, ["setting density has changed"]),  # one less
        (None, {"density": 0.5}, ["setting density has changed"]),
        (None, {"second_base": "toy-b"}, []),
    ],
)
def test_a_run_is_overtaken_by_the_settings_that_it_asked_for(read, change, reasons):
    content = {"base": "own", "alpha": 5.0, "density": 0.2}
    card = {"recipes": [], "parameters": {**content, "seed": 3}}
    card |= {"read": [*read, "base", "seed"]} if read else {}
    now = {key: value for key, value in {**content, **change}.items() if value is not None}
    assert reference.moved(card, now) == reasons


def test_runs_that_noted_what_they_asked_for_are_alike_beside_those_that_did_not():
    old = {"notebook": "x", "recipes": [], "parameters": {"alpha": 5.0, "density": 0.2}}
    new = {**old, "read": ["alpha"]}
    pieces.check_alike({0: [old], 1: [new]}, "again")
    other = {**new, "parameters": {"alpha": 5.0, "density": 0.5}}
    pieces.check_alike({0: [new], 1: [other]}, "again")
    with pytest.raises(BvError, match="differ in the parameters"):
        pieces.check_alike({0: [old], 1: [other]}, "again")
