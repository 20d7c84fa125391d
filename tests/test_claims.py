"""The claims as claims.yaml holds them, what is refused on load, statuses and tolerances."""

import dataclasses
import json
import math

import pytest
import yaml
from helpers import one_line

from bvlib.report import claims
from bvlib.report.claims import CLAIMS, MEASURES, STATUSES, check, load
from bvlib.report.expected import tolerance_of
from bvlib.run import notebooks

FIGURES = notebooks.root_folder() / "figures"


def claim(kind, bound=0.0):
    return claims.Claim("x", "", "", "", "", kind, "sbv_minus_single", "", bound)


@pytest.mark.parametrize(
    "kind, bound, values, status",
    [
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
    ],
)
def test_a_direction_holds_only_if_the_interval_excludes_the_bound(kind, bound, values, status):
    assert check(claim(kind, bound), values) == status and status in STATUSES


@pytest.mark.parametrize(
    "room, status",
    [
        ([9.0, 9.9], "no room"),
        ([9.0, 11.0], "same direction"),
        ([95.0], "same direction"),
        ([99.0, 92.0], "no room"),
        ([None], "inconclusive"),
    ],
)
def test_where_an_effect_hardly_happens_a_claim_has_no_room(room, status):
    needs = {"measure": "badnets_merged_asr", "least": 10, "most": 95}
    found = dataclasses.replace(claim("positive difference"), room=needs)
    assert check(found, [10, 11, 12], room) == status
    assert check(found, [], room) == "not run"


def test_the_list_of_claims_is_in_order():
    roots = {c.id.split("-")[0] for c in CLAIMS}
    assert roots == {"badmerging", "bv", "transfer", "sbv", "inherent", "ibvs"}
    for c in CLAIMS:
        assert c.statement and c.where and c.test and c.expected and c.figure, c.id
    assert [c.id for c in CLAIMS if c.designed_in == "yes"] == ["inherent-in-base"]
    assert {m.unit for m in MEASURES.values()} == {"%", "points", "index", "% of own effect"}


def _changed(tmp_path, change):
    """The committed file with one change, written anew."""
    content = yaml.load(claims.FILE.read_text(encoding="utf-8"), yaml.CSafeLoader)
    change(content)
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "claims.yaml"


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c["claims"][0].update(figur="x"), ["badmerging-classical-diluted", "'figure'"]),
        (
            lambda c: c["claims"][0].pop("test"),
            ["badmerging-classical-diluted", "no 'test'", "add"],
        ),
        (lambda c: c["claims"][0].update(kind="at mots"), ["kind of claim", "'at most'"]),
        (lambda c: c["claims"][0].update(measure="sbv_ba_cosst"), ["measure", "'sbv_ba_cost'"]),
        (lambda c: c["claims"][1].update(id=c["claims"][0]["id"]), ["two claims", "rename"]),
        (lambda c: c["claims"][0].update(designed_in="yess"), ["designed_in", "mean 'yes'"]),
        (lambda c: c["claims"][0].update(room={"measure": "off_as"}), ["room", "mean 'off_asr'"]),
        (
            lambda c: c["claims"][0].update(room={"measure": "off_asr", "leest": 2}),
            ["bound of the room", "mean 'least'"],
        ),
        (lambda c: c["measures"]["off_asr"].update(quantity="asrr"), ["off_asr", "mean 'asr'"]),
        (lambda c: c.pop("measures"), ["claims.yaml", "damaged", "git"]),
        (lambda c: c.update(more=1), ["claims.yaml", "damaged", "'more'"]),
        (lambda c: c.update(claims=["text"]), ["claims.yaml", "damaged"]),
    ],
)
def test_what_the_file_gets_wrong_is_one_line(tmp_path, change, words):
    path = _changed(tmp_path, change)
    with one_line(*words):
        load(path)


def test_a_file_that_is_missing_or_no_yaml_is_one_line(tmp_path):
    with one_line("claims.yaml", "missing"):
        load(tmp_path / "claims.yaml")
    (tmp_path / "claims.yaml").write_text("a: [")
    with one_line("claims.yaml", "damaged"):
        load(tmp_path / "claims.yaml")


# Tolerances


@pytest.mark.parametrize(
    "name, unit, tolerance",
    [
        ("BA", "%", 1.0),
        ("ibvs_clean_cost", "points", 1.0),
        ("ca_minus_ba", "points", 1.0),
        ("ASR of BA", "%", 3.0),
        ("sbv_minus_single", "points", 3.0),
        ("rank correlation of cosine and transfer", "index", 0.3),
        ("transfer across place", "% of own effect", 5.0),
    ],
)
def test_a_value_may_drift_by_its_quantity(name, unit, tolerance):
    assert tolerance_of(name, unit) == tolerance


@pytest.mark.parametrize(
    "path", sorted(FIGURES.glob("*/expected.json")), ids=lambda p: p.parent.name
)
def test_every_committed_tolerance_is_that_of_its_quantity(path):
    expected = json.loads(path.read_text(encoding="utf-8"))
    for part in ("headline", "measures"):
        for name, entry in expected[part].items():
            assert tolerance_of(name, entry["unit"]) == entry["tolerance"], name
