"""The report and the claims on runs written by hand: intervals, statuses, seconds, drift."""

import json
import math

import pytest
from click.testing import CliRunner

from bvlib import report
from bvlib.claims import CLAIMS, MEASURES, STATUSES, Claim, check
from bvlib.cli import main
from bvlib.errors import BvError, MissingData


@pytest.fixture
def world(tmp_path, monkeypatch):
    for name in ("notebooks", "profiles"):
        (tmp_path / name).mkdir()
    (tmp_path / "profiles" / "tiny.yaml").write_text("world: toy\n")
    monkeypatch.setenv("BVLIB_NOTEBOOKS", str(tmp_path / "notebooks"))
    monkeypatch.setenv("BVLIB_PROFILES", str(tmp_path / "profiles"))
    monkeypatch.setenv("BVLIB_RUNS", str(tmp_path / "runs"))
    return tmp_path


def write_run(world, seed, notebook="01_badmerging", headline=None, measures=None, artefacts=(), own=None,
              folder=None):
    out = world / "runs" / "tiny" / (folder or f"seed-{seed}")
    (out / ".records").mkdir(parents=True, exist_ok=True)
    values = {name: {"value": v, "low": v - 2 if v is not None else None,
                     "high": v + 2 if v is not None else None, "unit": "%"}
              for name, v in (headline or {}).items()}
    (out / f"{notebook}.json").write_text(json.dumps({
        "notebook": notebook, "profile": "tiny", "seed": seed, "parameters": {}, "headline": values,
        "measures": measures or {}, "seconds": 20.0, "artefacts": list(artefacts)}))
    if own is not None:
        (out / ".records" / f"{notebook}.json").write_text(json.dumps({"own": own}))


def bv(*args):
    return CliRunner().invoke(main, ["report", "--profile", "tiny", *args])


# Claims

def claim(kind, bound=0.0):
    return Claim("x", "", "", kind, "", "", "sbv_minus_single", bound)


@pytest.mark.parametrize("kind, bound, values, status", [
    ("positive difference", 0, [], "not run"),
    ("positive difference", 0, [None, math.nan], "not run"),
    ("positive difference", 0, [50.0], "inconclusive"),
    ("positive difference", 0, [50.0, None], "inconclusive"),
    ("positive difference", 0, [10, 11, 12], "same direction"),
    ("positive difference", 0, [-10, -11, -12], "differs"),
    ("positive difference", 0, [10, -1, 12], "inconclusive"),
    ("negative difference", 0, [-10, -11, -12], "same direction"),
    ("negative difference", 0, [10, 11, 12], "differs"),
    ("at most", 30, [10, 11, 12], "same direction"),
    ("at most", 30, [40, 41, 42], "differs"),
    ("at most", 1, [0, 0, 0], "same direction"),
    ("at least", 30, [40, 41, 42], "same direction"),
    ("at least", 30, [25, 35, 40], "inconclusive"),
    ("positive difference", 0, [0, 0, 0], "inconclusive"),
])
def test_a_direction_holds_only_if_the_interval_excludes_the_bound(kind, bound, values, status):
    assert check(claim(kind, bound), values) == status and status in STATUSES


def test_the_list_of_claims_is_in_order():
    ids = [c.id for c in CLAIMS]
    assert len(set(ids)) == len(ids)
    assert {i.split("-")[0] for i in ids} == {"badmerging", "bv", "transfer", "sbv", "inherent", "ibvs"}
    for c in CLAIMS:
        assert c.statement and c.where and c.test and c.expected and c.measure in MEASURES
    assert [c.id for c in CLAIMS if c.designed_in] == ["inherent-in-base"]
    with pytest.raises(BvError, match="did you mean 'at most'"):
        claim("at mots")
    with pytest.raises(BvError, match="did you mean 'sbv_ba_cost'"):
        Claim("x", "", "", "at most", "", "", "sbv_ba_cosst")


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
    write_run(world, 0, headline={"clean_accuracy": 70.0, "undefined": None},
              measures={"sbv_minus_single": 9.0})
    write_run(world, 0, headline={"clean_accuracy": 1.0}, folder="seed-0+12345678")
    gathered = json.loads(bv("--json").stdout)
    assert gathered["headline"]["clean_accuracy"] == {"mean": 70.0, "low": 68.0, "high": 72.0, "unit": "%"}
    assert gathered["headline"]["undefined"]["mean"] is None
    [sbv] = [c for c in gathered["claims"] if c["id"] == "sbv-beats-single"]
    assert (sbv["obtained"], sbv["low"], sbv["status"]) == (9.0, None, "inconclusive")


def test_several_seeds_have_a_t_interval(world):
    for seed, value in enumerate([10.0, 12.0, 14.0]):
        write_run(world, seed, headline={"clean_accuracy": value}, measures={"sbv_minus_single": value})
    gathered = json.loads(bv("--json").stdout)
    half = 4.302653 * 2 / math.sqrt(3)
    assert gathered["seeds"] == [0, 1, 2]
    assert gathered["headline"]["clean_accuracy"]["low"] == pytest.approx(12 - half, abs=1e-4)
    [sbv] = [c for c in gathered["claims"] if c["id"] == "sbv-beats-single"]
    assert (sbv["status"], sbv["obtained"]) == ("same direction", 12.0)
    assert json.loads(bv("--json", "--seeds", "0,1").stdout)["seeds"] == [0, 1]
    assert json.loads(bv("--json", "--seed", "2").stdout)["headline"]["clean_accuracy"]["mean"] == 14.0
    for text in (bv().stdout, bv("--markdown").stdout):
        assert "sbv-beats-single" in text and "inherent-in-base (designed in)" in text and "12.0 %" in text
    path = report.write("tiny")
    assert path.read_text() == report.as_markdown(report.gather("tiny"))
    assert json.loads(path.with_name("report.json").read_text())["seeds"] == [0, 1, 2]


def test_seconds_count_a_shared_result_once(world):
    base = {"key": "b", "path": "b", "seconds": 100.0, "elapsed": 100.0, "nested": {}}
    loaded = {**base, "elapsed": 0.1}
    attack = {"key": "a", "path": "a", "seconds": 30.0, "elapsed": 0.2, "nested": {"b": 100.0, "inner": 5.0}}
    write_run(world, 0, "00_setup", artefacts=[base], own=4.0)
    write_run(world, 0, "01_badmerging", artefacts=[loaded, attack], own=3.0)
    write_run(world, 0, "02_bv", artefacts=[attack])
    assert report.gather("tiny")["seconds"] == {"00_setup": 104.0, "01_badmerging": 38.0, "02_bv": 19.8}


def test_a_name_with_two_values_is_said(world, capsys):
    write_run(world, 0, "00_setup", measures={"ca_minus_ba": 1.0})
    write_run(world, 0, "01_badmerging", measures={"ca_minus_ba": 2.0})
    [utility] = [c for c in report.gather("tiny")["claims"] if c["id"] == "badmerging-keeps-utility"]
    assert utility["obtained"] == 1.0
    assert "ca_minus_ba differs between 00_setup and 01_badmerging" in capsys.readouterr().err


# Drift

def test_drift_from_the_committed_values(world):
    assert bv("--check").exit_code == 2
    with pytest.raises(MissingData, match="no run of profile tiny with seed 0"):
        report.write_expected("tiny")
    write_run(world, 0, headline={"clean_accuracy": 70.0, "undefined": None},
              measures={"sbv_minus_single": 9.0})
    report.write_expected("tiny")
    path = world / "figures" / "tiny" / "expected.json"
    expected = json.loads(path.read_text())
    assert expected["headline"]["clean_accuracy"] == {"value": 70.0, "unit": "%", "tolerance": 5.0}
    assert expected["measures"]["sbv_minus_single"] == {"value": 9.0, "unit": "points", "tolerance": 5.0}
    assert bv("--check").exit_code == 0

    expected["measures"]["sbv_minus_single"]["tolerance"] = 0.5
    path.write_text(json.dumps(expected))
    write_run(world, 0, headline={"clean_accuracy": 74.0, "undefined": None, "new": 1.0},
              measures={"sbv_minus_single": 9.6})
    result = bv("--check")
    assert result.exit_code == 1
    assert result.stderr == ("bv: drift: measures sbv_minus_single: 9.60, committed 9.00 points "
                             "(tolerance 0.5)\n")

    write_run(world, 0, headline={"undefined": 3.0}, measures={"sbv_minus_single": 9.0})
    lines = report.drift("tiny")
    assert len(lines) == 2 and "clean_accuracy: missing" in lines[0] and "committed undefined" in lines[1]

    report.write_expected("tiny")
    kept = json.loads(path.read_text())
    assert kept["measures"]["sbv_minus_single"]["tolerance"] == 0.5
    assert "clean_accuracy" not in kept["headline"]
    report.write_expected("tiny", tolerance=1.0)
    assert json.loads(path.read_text())["measures"]["sbv_minus_single"]["tolerance"] == 1.0
