"""Answers of notebooks on numbers written by hand: every sentence that they can choose."""

import pytest

from bvlib.report.answers import Numbers, sides, text

ON = "badmerging-on"


def numbers(unit="%", **values):
    """Numbers by name, "_" for a comma and a blank; a pair of ends makes an interval."""
    entries = {name: {"value": value, "unit": unit, "low": None} for name, value in values.items()}
    return Numbers(entries, ON)


def told(notebook, values, measures=None):
    return text(notebook, numbers(**values), measures or {})


def test_a_number_in_words_with_its_interval_and_unit():
    n = Numbers(
        {
            "a": {"value": 45.94, "unit": "%", "low": 42.7, "high": 49.2},
            "b": {"value": 0.26, "unit": "points", "low": None, "high": None},
            "c": {"value": 1.0, "unit": "index"},
        },
        ON,
    )
    assert n("a") == "45.9 % [42.7, 49.2]" and n("b") == "0.3 points" and n("c") == "1.0"
    assert n["a"] == 45.94 and "a" in n and "d" not in n


@pytest.mark.parametrize("merged, words", [(62, "So merging works: the merge keeps 60 %"),
                                           (61, "only 58 %")])  # fmt: skip
def test_00_says_whether_merging_works(merged, words):
    values = {"zero-shot accuracy": 32, "fine-tuned accuracy": 82}
    said = told("00_setup", values | {"merged accuracy (task arithmetic)": merged})
    assert words in said and ("surviving backdoor means less" in said) == (merged < 62)


@pytest.mark.parametrize("merged, words", [(29.9, "is diluted, as the paper"),
                                           (30.0, "*not* diluted")])  # fmt: skip
def test_01_says_what_dies(merged, words):
    values = {"ASR badnets, alone": 99, "ASR badnets, merged": merged, "CA minus BA": 0.1}
    for row in (", merged", ", merged by TIES", " trigger, clean merge", " trigger, base"):
        values[f"ASR {ON}{row}"] = 70
    values[f"ASR {ON} trigger, clean merge by TIES"] = 60
    said = told("01_badmerging", values)
    assert words in said and f"and {merged} % after it" in said and "60.0 %" in said
    assert "optimised patch" not in said  # another attack than the one that the parts are of


@pytest.mark.parametrize("low, words", [(0.1, "So the loss adds to the patch"),
                                        (0.0, "adds to the patch is not above zero")])  # fmt: skip
def test_01_says_which_part_does_it(low, words):
    values = {"ASR badnets, alone": 99, "ASR badnets, merged": 3, "CA minus BA": 0.1}
    for row in (", merged", ", merged by TIES", " trigger, clean merge", " trigger, base"):
        values[f"ASR {ON}{row}"] = 70
    values[f"ASR {ON} trigger, clean merge by TIES"] = 60
    values |= {"ASR universal-only, merged": 69, "ASR interpolation-only, merged": 5}
    n = numbers(**values)
    n.headline[f"merged ASR, {ON} minus universal-only"] = {
        "value": 1, "low": low, "high": 2, "unit": "points"
    }  # fmt: skip
    assert words in text("01_badmerging", n, {})


def transfer(seed, place, other, task):
    names = {"seed": seed, "place": place, "target class": other, "task": task}
    return {f"transfer across {axis}, by addition": value for axis, value in names.items()}


@pytest.mark.parametrize(
    "found, holds", [((99, 98, -5, 3), True), ((99, 3, -5, 4), False), ((9, 8, 8, 0), False)]
)
def test_02_says_whether_the_order_holds(found, holds):
    values = {f"ASR at λ_BV = {s}": v for s, v in ((0, 20), (0.3, 80), (1, 100))}
    values["transfer of placebos, by addition"] = 1
    said = told("02_bv", values | transfer(*found))
    assert ("carries over more to attacks with its target" in said) is holds
    assert ("order of transfer does not hold" in said) is not holds
    assert f"{found[0]} across seeds" in said and "from 20.0 to 100.0 %" in said


@pytest.mark.parametrize("ours, total", [(61, 91), (60, 90), (59, 89)])
def test_03_says_what_an_sbv_gains(ours, total):
    values = {"ASR clean merge (zero line)": 17, "ASR SBV by sum, as it is": total}
    values["λ_BV of the primary comparison"] = 0.7
    values["ASR of one BV scaled to the norm of that sum"] = 90
    for how in ("as they are", "at equal norm"):
        values[f"ASR one BV, merged, {how}"] = 60
        values[f"ASR sign-consistent, merged, {how}"] = ours
    said = told("03_sbv", values)
    assert said.count("1.0 points more.") == (2 if ours > 60 else 0)
    assert said.count("1.0 points less.") == (2 if ours == 59 else 0)
    assert "at λ_BV = 0.7. As they are, one vector reaches 60.0 %" in said
    assert ("gains more than length" in said) == (total > 90)
    assert ("all that the sum gains is length" in said) == (total <= 90)


@pytest.mark.parametrize(
    "share, mean, words",
    [(60, 51, "is the core"), (40, 51, "depends on the merge"), (40, 50, "*not* inherent")],
)
def test_04_says_how_much_was_there(share, mean, words):
    values = {f"ASR {kind}, {model}": 80 for kind in ("inherent trigger", "random patch")
              for model in ("base", "clean merge")}  # fmt: skip
    name = f"share of the merged ASR of {ON} that is inherent"
    said = told("04", values | {name: share, f"{name}, mean over merging algorithms": mean})
    assert words in said and f"flips {share} % too" in said


@pytest.mark.parametrize(
    "after, placebo, word, so",
    [
        (38.8, 39.9, "lowers", "IBVS lowers the ASR"),
        (38.9, 39.8, "lowers", "Against no attack"),
        (39.1, 39.9, "hardly moves", "Against no attack"),
        (41.1, 42.0, "raises", "Against no attack"),
    ],
)
def test_05_says_what_the_defence_does(after, placebo, word, so):
    values = {f"ASR {ON} before IBVS": 40, f"ASR {ON} after IBVS": after}
    values |= {f"zero line of {ON} (clean merge, same trigger)": 3}
    values |= {f"ASR {ON} after the best placebo": placebo, "clean accuracy cost of IBVS": 0.5}
    values |= {f"ASR drop {ON}, oracle": 56, "clean accuracy cost of that placebo": 1.5}
    values |= {f"ASR drop {ON}, defender who guesses the attacker's class": 35}
    said = told("05", values)
    assert said.startswith(so) and "and that placebo 1.5 %" in said
    assert f"It {word} {ON}, from 40.0 to {after} % (best placebo {placebo:.1f}, clean" in said
    assert "takes 56.0 % off, where the attack had added 37.0" in said
    assert "guesses the attacker's class takes 35.0 % off" in said
    two = values | {name.replace(ON, "sbv"): value for name, value in values.items()}
    two |= {"ASR sbv after IBVS": 10, "ASR sbv after the best placebo": 20}
    both = " against each attack." if so.startswith("IBVS") else " against sbv only."
    assert both in told("05", two)
    more = {n.replace("sbv", a): v for a in ("badnets", "x") for n, v in two.items() if "sbv" in n}
    three = "against sbv, badnets and x only" if so.startswith("Against") else "so the direction"
    assert three in told("05", two | more)


def test_each_claim_lies_on_a_side_and_one_seed_gives_no_verdict():
    measures = {"badmerging_minus_clean_merge": -1.0, "unknown": 3.0}
    lines = sides({"badnets_merged_asr": 29.9, **measures})
    assert "single model)). ASR of BadNets after" in lines[0] and ".*" not in lines[1]
    assert (
        "here 29.9 %; the claim asks for less than 30: yes, by less than a point. Note:" in lines[0]
    )
    assert lines[1].endswith("here -1.0 points; the claim asks for more than 0: **no**.")
    assert "gives no verdict" in lines[-1] and len(lines) == 4
    assert "(a test of ours). " in sides({"sbv_ba_cost": 1.0})[0]
    assert sides({"badnets_merged_asr": None}) == []
