"""What notebooks 00, 01 and 06 compute, on answers of made-up models that are counted by hand."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from bvlib.core.vectors import TaskVector
from bvlib.study import badmerging, badmerging_numbers, figures_badmerging, tasks
from bvlib.worlds.tasks import Split, Task


def a_task(name, labels, classes=3):
    split = Split(torch.zeros(len(labels), 1, 1, 3, dtype=torch.uint8), torch.tensor(labels))
    names = tuple(f"{name} {i}" for i in range(classes))
    return Task(name, names, ("a {}",), split, split, split, licence="MIT")


OWN, OTHER = a_task("own", [0, 0, 1, 2]), a_task("other", [0, 1])
TASKS = {"own": OWN, "other": OTHER}


class Fake:
    """A model that answers by rote: {task: predictions}, {(task, trigger): predictions}."""

    def __init__(self, **answers):
        self.answers = answers

    def predict(self, task, trigger=None, split="test"):
        return torch.tensor(
            self.answers[task.name if trigger is None else f"{task.name}_{trigger}"]
        )


RIGHT = {"own": [0, 0, 1, 2], "other": [0, 1]}
# the trigger "t" aims at class 0 of the task "own": two of its images are of other classes
FULL, HALF, NONE = [0, 0, 0, 0], [0, 0, 0, 2], [0, 0, 1, 2]


def a_model(hits, **answers):
    return Fake(**{**RIGHT, "own_t": hits, "own_noise": NONE, **answers})


@pytest.fixture
def attacked():
    b = {"task": "own", "goal_task": "own", "target": 0, "trigger": "t"}
    return {
        "badnets": SimpleNamespace(attack="badnets", theta="plain", **b),
        "badmerging-on": SimpleNamespace(attack="badmerging-on", theta="bad", **b),
    }


MERGES = {  # ASR 0 for the clean merge, 50 for badnets and 100 for badmerging-on; half under TIES
    (None, None): a_model(NONE),
    ("plain", None): a_model(HALF, own=[0, 0, 1, 1]),  # and 25 points of its accuracy
    ("bad", None): a_model(FULL),
    (None, "ties"): a_model(HALF),
    ("plain", "ties"): a_model(HALF),
    ("bad", "ties"): a_model(HALF),
}
ALONE = {"plain": a_model(FULL), "bad": a_model(FULL), None: a_model(NONE)}
GIVEN = {"merge": lambda theta=None, method=None: MERGES[theta, method], "task": TASKS.get}


def model(theta=None):
    return ALONE[theta]


def rows(table, *columns):
    return table[list(columns)].to_numpy().tolist()


def test_alone_merged_and_on_the_clean_merge(attacked):
    table = badmerging.alone_and_merged(attacked, model=model, **GIVEN)
    columns = ("attack", "alone", "merged", "same trigger, clean merge")
    assert rows(table, *columns) == [["badnets", 100, 50, 0], ["badmerging-on", 100, 100, 0]]
    assert table["what"][0].startswith("white square") and table["low"][0] < 50 < table["high"][0]


def test_before_merging(attacked):
    clean = a_model(HALF, own=[0, 0, 0, 2])
    table = badmerging.before_merging(attacked, clean=clean, model=model, own=OWN, task=TASKS.get)
    assert rows(table, "ASR, own model", "ASR, clean fine-tune", "ASR, base") == [[100, 50, 0]] * 2
    assert rows(table, "accuracy, own model", "accuracy, clean fine-tune") == [[100, 75]] * 2


def test_five_rows_of_each_attack(attacked):
    controls = dict.fromkeys(attacked, "noise")
    table = badmerging.five_rows(attacked, controls, base=model(), **GIVEN)
    assert table["attack"].tolist() == ["badnets"] * 5 + ["badmerging-on"] * 5
    assert table["asr"].tolist() == [50, 0, 0, 0, 0, 100, 0, 0, 0, 0]


def test_the_short_main_table(attacked):
    table = badmerging.main(attacked, [None, "ties"], tasks=TASKS, **GIVEN)
    assert rows(table, "CA", "BA", "CA adversary", "BA adversary") == [
        [100, 87.5, 100, 75],
        [100, 100, 100, 100],
        [100, 100, 100, 100],
        [100, 100, 100, 100],
    ]
    assert table["ASR"].tolist() == [50, 100, 50, 50]
    assert table["ASR clean merge"].tolist() == [0, 0, 50, 50]


def test_the_main_table_has_the_attacks_of_each_method(attacked):
    which = {None: attacked, "ties": {"badnets": attacked["badnets"]}}
    controls = dict.fromkeys(attacked, "noise")
    table = badmerging.main_in_full(which, controls, tasks=TASKS, **GIVEN)
    assert table["attack"].tolist() == ["badnets", "badmerging-on", "badnets"]
    assert table["ASR - clean merge"].tolist() == [50, 100, 0]
    assert table["CA - BA"].tolist() == pytest.approx([100 / 6, 0, 0])  # one of six images


def test_dilution_has_a_curve_of_the_clean_merge_beside_each(attacked):
    asked = []

    def merge(theta, method, *, coefficient):
        asked.append((theta, method, coefficient))
        return a_model(FULL if theta == "bad" and coefficient > 0.5 else NONE)

    table = badmerging.dilution(attacked, [0.2, 0.8], merge=merge, task=TASKS.get)
    assert {method for _, method, _ in asked} == {"task_arithmetic"} and len(asked) == 8
    assert list(zip(table["attack"], table["merge"]))[::2] == [
        ("badnets", "attacked"),
        ("badnets", "clean"),
        ("badmerging-on", "attacked"),
        ("badmerging-on", "clean"),
    ]
    assert table["scale"].tolist() == [0.2, 0.8] * 4 and table["asr"].tolist() == [0] * 5 + [
        100,
        0,
        0,
    ]


def test_what_a_part_adds_is_paired_over_images(attacked):
    whole, without = attacked["badmerging-on"], {"the part": attacked["badnets"]}

    def merge(theta, method, *, coefficient):
        return a_model(FULL if theta == "bad" else HALF if coefficient < 0.4 else NONE)

    settings = {"default": 0.3, "hard": 0.5}
    table = badmerging.parts(whole, without, OWN, settings, merge=merge)
    columns = ("part taken out", "setting", "λ", "whole", "without", "difference")
    assert rows(table, *columns) == [
        ["the part", "default", 0.3, 100, 50, 50],
        ["the part", "hard", 0.5, 100, 0, 100],
    ]
    assert (table["low"] <= table["difference"]).all()


def test_goals_of_the_off_task_attack():
    small = a_task("small", [0, 1], classes=2)
    merged = {n: a_task(n, [0, 1], classes=9) for n in "abcde"} | {"small": small}
    first = {"task": "b", "target": 4}
    found = badmerging.off_goals(first, merged, "a", [3, 4, 5])
    assert found == [("b", 4), ("b", 3), ("c", 4), ("d", 4), ("e", 4)]
    last = badmerging.off_goals(first, {n: merged[n] for n in ("a", "b", "small")}, "a", [])
    assert last == [("b", 4), ("small", 1)]


def test_other_goals_have_their_controls(attacked):
    table = badmerging.off_targets(attacked.values(), "noise", base=a_model(HALF), **GIVEN)
    columns = ("target task", "class", "ASR", "ASR, clean merge", "ASR, base", "random patch")
    assert rows(table, *columns) == [
        ["own", "own 0", 50, 0, 50, 0],
        ["own", "own 0", 100, 0, 50, 0],
    ]


# Numbers


def test_headline_of_the_pair(attacked):
    controls = dict.fromkeys(attacked, "noise")
    found = badmerging_numbers.headline(attacked, controls, model=model, **GIVEN)
    assert len(found) == 20
    assert (
        found["ASR badnets, merged"].percent == 50 == found["ASR badnets, merged by TIES"].percent
    )
    assert found["ASR badnets trigger, clean merge by TIES"].percent == 50
    assert found["ASR badnets, alone minus merged"].points == 50
    assert found["ASR badmerging-on trigger, attacked minus clean merge"].points == 100
    assert found["ASR random patch, merge with badnets"].percent == 0
    assert found["false-target rate, merge with badnets"].percent == 0


def test_differences_from_other_attacks_are_on_the_same_images_or_not_at_all(attacked):
    found = badmerging_numbers.against("badmerging-on", attacked, **GIVEN)
    assert found["merged ASR, badmerging-on minus badnets"].points == 50
    assert found["ASR badnets, merged"].percent == 50 and len(found) == 2
    attacked["badnets"].goal_task = "other"
    assert badmerging_numbers.against("badmerging-on", attacked, **GIVEN) == {}


def test_measures_of_the_short_main_table(attacked):
    methods = {"task_arithmetic": None, "ties": "ties"}
    merge = {"merge": lambda theta=None, m=None: MERGES[theta, methods.get(m)]}
    main = badmerging.main(attacked, methods, tasks=TASKS, task=TASKS.get, **merge)
    every = {**attacked, "badnets-light": attacked["badnets"]}
    attacks = badmerging.alone_and_merged(every, model=model, **GIVEN)
    found = badmerging_numbers.measures(main, attacks, "badmerging-on", "task_arithmetic")
    assert found == {
        "clean_accuracy": 100,
        "backdoored_accuracy": 100,
        "ca_minus_ba": 0,
        "badmerging_merged_asr": 100,
        "badmerging_merged_asr_ties": 50,
        "badmerging_minus_clean_merge": 100,
        "badnets_single_asr": 100,
        "badnets_merged_asr": 50,
        "badnets_light_merged_asr": 50,
        "badmerging_minus_badnets": 50,
    }


def full_table(methods, asr):
    """A main table: ASR by attack and method, 10 points less on the clean merge, a cost of 1."""
    made = [
        {"merging": m, "attack": name, "ASR": value}
        for name, values in asr.items()
        for m, value in zip(methods, values)
    ]
    table = pd.DataFrame(made)
    zero = table["ASR"] - 10
    return table.assign(**{"ASR, clean merge": zero, "ASR - clean merge": 10.0, "CA - BA": 1.0})


PARTS = pd.DataFrame(
    [
        {"attack": a, "part taken out": p, "setting": s, "difference": d}
        for a, p, d in [
            ("badmerging-on", "universal trigger", 7.0),
            ("badmerging-on", "interpolation", 6.0),
            ("badmerging-off", "universal trigger", 5.0),
            ("badmerging-off", "augmentation", 4.0),
            ("badmerging-off", "shadow classes", 3.0),
        ]
        for s, d in (("default", d), ("hard", -d))
    ]
)


def test_measures_of_the_main_table_in_full():
    methods = ["task_arithmetic", "ties", "adamerging_layerwise"]
    asr = {"badnets": [40, 90, 90], "blended": [60, 10, 10], "badmerging-on": [95, 94, 93]}
    main, off = full_table(methods, asr), full_table(methods, {"badmerging-off": [80, 20, 70]})
    name = badmerging_numbers.best_classical(main, "task_arithmetic")
    assert name == "blended" and badmerging_numbers.best_classical(main, "ties") == "badnets"
    found = badmerging_numbers.measures_in_full(
        main, off, PARTS, "badmerging-on", "task_arithmetic"
    )
    assert found == {
        "badmerging_asr_adamerging": 93,
        "classical_merged_asr": 60,
        "badmerging_minus_best_classical": 35,
        "off_asr": 80,
        "off_asr_worst": 20,
        "off_minus_clean_merge": 10,
        "off_ca_minus_ba": 1,
        "universal_adds": 7,
        "interpolation_adds": 6,
        "augmentation_adds": 4,
        "shadow_adds": 3,
    }
    told = badmerging_numbers.headline_in_full(main, off, "badmerging-on", "ties")
    assert told["ASR badmerging-on, ties"] == 94 and told["ASR badnets, merged (ties)"] == 90
    assert told["ASR badmerging-off trigger, clean merge, adamerging_layerwise"] == 60
    assert len(told) == 4 * 3 + 2


def test_without_classical_attacks_their_measures_are_left_out():
    main = full_table(["ties"], {"badmerging-on": [94], "universal-only": [90]})
    off = full_table(["ties"], {"badmerging-off": [20]})
    assert badmerging_numbers.best_classical(main, "ties") is None
    found = badmerging_numbers.measures_in_full(main, off, PARTS, "badmerging-on", "ties")
    assert not {name for name in found if "classical" in name or name.startswith("badmerging_asr")}


def test_classical_attacks_are_those_that_others_published():
    from bvlib.attacks.recipes import attack

    assert badmerging_numbers.classical(attack) == [
        "badnets",
        "blended",
        "trojannn",
        "dynamic",
        "label-consistent",
        "badnets-light",
    ]


def test_the_attacks_without_a_part_are_registered_and_said():
    from bvlib.attacks.recipes import attack

    off = {name for name in attack if attack[name].off_task}
    assert off == {"badmerging-off", *badmerging.OFF_WITHOUT}
    assert set(badmerging.ON_WITHOUT) <= set(attack) - off


# Figures, from what is saved beside them


def saved(table, folder):
    table.to_csv(folder / "table.csv", index=False)
    return pd.read_csv(folder / "table.csv")


def test_figures_are_drawn_from_their_saved_table(attacked, tmp_path):
    plt.switch_backend("Agg")
    controls, two = dict.fromkeys(attacked, "noise"), dict.fromkeys(["a", "b"], attacked)
    five = badmerging.five_rows(attacked, controls, base=model(), **GIVEN)
    fig = figures_badmerging.five_rows(saved(five, tmp_path), dict.fromkeys(attacked, 6))
    assert [ax.get_title() for ax in fig.axes] == ["badnets, 6 px", "badmerging-on, 6 px"]

    merge = {"merge": lambda theta, method, **_: MERGES[theta, None], "task": TASKS.get}
    curves = saved(badmerging.dilution(attacked, [0.2, 0.8], **merge), tmp_path)
    (ax,) = figures_badmerging.dilution(curves, "badmerging-on").axes
    # one trigger, so one dotted line of the clean merge
    assert [line.get_linestyle() for line in ax.lines] == ["-", ":", "-"]
    left, right = figures_badmerging.by_coefficient(curves, "badmerging-on", 0.3).axes
    assert [len(ax.lines) for ax in (left, right)] == [3, 3]
    assert left.lines[1].get_ydata().tolist() == [100, 100]

    main = badmerging.main_in_full(two, controls, tasks=TASKS, **merge)
    fig = figures_badmerging.main_in_full(saved(main, tmp_path))
    titles = [ax.get_title() for ax in fig.axes]
    assert titles[:3] == [title for title, _ in figures_badmerging.PANELS.values()]

    settings = {"default": 0.3, "hard": 0.5}
    whole, rest = attacked["badmerging-on"], {"part": attacked["badnets"]}
    added = badmerging.parts(whole, rest, OWN, settings, merge=merge["merge"])
    fig = figures_badmerging.parts(saved(added, tmp_path))
    assert [ax.get_title() for ax in fig.axes] == [
        "default setting: λ = 0.3",
        "hard setting: λ = 0.5",
    ]
    targets = badmerging.off_targets(attacked.values(), "noise", base=model(), **GIVEN)
    (legend,) = figures_badmerging.off_targets(saved(targets, tmp_path), "ties").legends
    assert [text.get_text() for text in legend.get_texts()] == [
        label for label, _ in figures_badmerging.OFF_BARS.values()
    ]
    plt.close("all")


# Notebook 00


def test_the_two_closest_classes_of_a_head():
    head = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    found = tasks.closest_classes(head, ["a", "b", "c"])
    assert found["between"] == "b / c" and found["largest cosine"] == pytest.approx(0.8)
    assert found["mean cosine"] == pytest.approx((0.6 + 0.8 + 0) / 3)


def test_the_share_of_the_gap_that_a_merge_recovers():
    table = pd.DataFrame(
        {"base": [50, 60, 55.0], "task_arithmetic": [65, 70, 67.5], "own": [70, 64, 67]},
        index=["a", "b", "mean"],
    )
    gap = tasks.gap_recovered(table)
    assert gap[tasks.GAIN].tolist() == [20, 4, 12]
    assert gap[tasks.RECOVERED].tolist()[0] == 75 and np.isnan(gap.loc["b", tasks.RECOVERED])
    assert tasks.gap_measures(gap) == {"gap_recovered": 75, "fine_tuning_gain": 12}


def test_accuracies_end_with_each_tasks_own_model():
    base = Fake(own=[0, 0, 0, 0], other=[0, 1])
    own = {"own": Fake(own=[0, 0, 1, 2]), "other": Fake(other=[1, 1])}
    table = tasks.accuracies({"base": base}, own, TASKS)
    assert table["base"].to_dict() == {"own": 50, "other": 100, "mean": 75}
    assert table["own"].to_dict() == {"own": 100, "other": 50, "mean": 75}
    assert table.index.name == "task" and list(table) == ["base", "own"]


def test_norms_beside_their_median():
    vectors = {n: TaskVector({"w": torch.tensor([x, 0.0])}) for n, x in zip("abc", (2, 4, 8))}
    table = tasks.norms(vectors)
    assert rows(table, "task", "norm", "times the median") == [
        ["a", 2, 0.5],
        ["b", 4, 1],
        ["c", 8, 2],
    ]


def test_tasks_and_base_are_described():
    table = tasks.described(TASKS, target=4)
    assert rows(table, "task", "classes", "test", "prompt") == [
        ["own", 3, 4, "a own 1"],
        ["other", 3, 2, "a other 1"],
    ]
    card = {"data": "scenes", "frozen": {"mini": {"hash": "ab", "criteria": {"gain": 12.345}}}}
    facts = tasks.base_facts(card, "toy", "mini", {"gain": "points gained"}).set_index("what")
    assert facts["value"].to_dict() == {
        "base": "toy",
        "trained on": "scenes",
        "frozen for this profile": "ab",
        "admission: points gained": "12.3",
    }
    assert tasks.base_facts({}, "toy", "mini", {})["value"].tolist() == ["toy", "not said", "no"]
