"""The numbers of the README's findings are those of the committed tables."""

from pathlib import Path

import pytest

from bvlib.report import overview

README = Path(__file__).parents[1] / "README.md"
NEW, OLD, REAL = "mini", "old_base", "real32"
# what the README says, and the headline or claim whose mean (v) and interval (low, high) it names
SAID = [
    ("BadNets keeps {v} % [{low}, {high}]", NEW, "ASR badnets, merged"),
    ("own task (*On*) {v} % [{low}, {high}]", NEW, "ASR badmerging-on, merged"),
    ("they keep {v} and", NEW, "ASR badnets, merged by TIES"),
    ("and {v} %.", NEW, "ASR badmerging-on, merged by TIES"),
    ("on {v} % of the images under TIES", NEW, "ASR badmerging-on trigger, clean merge by TIES"),
    ("({v} with the attack)", NEW, "ASR badmerging-on, merged by TIES"),
    ("on {v} % under task arithmetic", NEW, "ASR badmerging-on trigger, clean merge"),
    ("under task arithmetic ({v})", NEW, "ASR badmerging-on, merged"),
    ("BadNets kept {v} % on an earlier base", OLD, "badmerging-classical-diluted"),
    ("It keeps {v} % on real images", REAL, "badmerging-classical-diluted"),
    ("attacker's class, on {v} %", REAL, "ASR random patch, merge with badnets"),
    ("attacks {minus} points *less*", NEW, "sbv-beats-single"),
    ("IBVS takes {v} points off BadMerging-On", NEW, "ibvs-weakens-badmerging"),
    ("send {v} % or more", NEW, "ASR badnets, alone"),
]

ENDS = {"v": "mean", "low": "low", "high": "high"}


@pytest.fixture(scope="module")
def committed():
    return overview.summaries()


@pytest.mark.parametrize("said, profile, name", SAID)
def test_a_number_of_the_findings_is_that_of_its_table(committed, said, profile, name):
    found = committed[profile]
    claims = {claim["id"]: {**claim, "mean": claim["obtained"]} for claim in found["claims"]}
    entry = found["headline"].get(name) or claims[name]
    digits = {key: f"{entry[end] or 0:.1f}" for key, end in ENDS.items()}
    expected = said.format(**digits, minus=f"{-entry['mean']:.1f}")
    assert expected in " ".join(README.read_text(encoding="utf-8").split())
