"""What notebooks 05, 07 and 09 compute: cases worked by hand, on models that answer from a list."""

import io
import math

import pandas as pd
import pytest
import torch
from helpers import Dial, blank_task, noise_vector, one_line
from matplotlib import pyplot as plt

from bvlib.attacks import recipes, triggers
from bvlib.core.encoder import Model
from bvlib.defences import Situation, defence, detector
from bvlib.study import ablations, defences, figures_defences, ibvs
from bvlib.study.experiments import reached

TASK = blank_task("blank", [0] * 5 + [2] * 5, dev=[0] * 10)
TASKS = {"blank": TASK}
DEV = {0: 10, 0.5: 9, 1: 8}  # right dev images, test images, and flipped ones, by strength
TEST = {0: 10, 0.5: 8, 1: 7}
FLIPPED = {0: 8, 0.5: 5, 1: 1}


def falling(strength, trigger, split):
    """A model that is defended more and more: it loses accuracy, and obeys the trigger less."""
    labels = torch.tensor([0] * 5 + [2] * 5 if split == "test" else [0] * 10)
    right = (DEV if split == "dev" else TEST)[strength]
    clean = torch.where(torch.arange(10) < right, labels, 4)
    if trigger is None:
        return clean
    return torch.where(torch.arange(10) < FLIPPED[strength], 1, clean)


MERGED = Dial(falling, 0)
ATTACK = recipes.Backdoor("badnets", "blank", 1, "white", {}, None, "blank")
MINUS = -1.0  # a "vector": subtracting s of it turns the dial up by s


def csv(table):
    """The table as it comes back from the file that is saved beside a figure."""
    return pd.read_csv(io.StringIO(table.to_csv(index=False)))


@pytest.fixture
def paths():
    return ibvs.paths(
        {"badnets": ATTACK},
        {"badnets": MERGED},
        {"badnets": {ibvs.MEAN: MINUS, ibvs.ORACLE: MINUS}},
        [0, 0.5, 1],
        budget=10.0,
        tasks=TASKS,
        adversary=TASK,
        goal=TASKS.__getitem__,
    )


# IBVS: notebook 05


def test_the_path_the_chosen_strength_and_its_cost(paths):
    part = paths[paths["defender"] == ibvs.MEAN]
    assert part["scale"].tolist() == [0, 0.5, 1]
    assert part["asr"].tolist() == [80, 50, 10] and part["accuracy"].tolist() == [100, 90, 80]
    assert part["cost"].tolist() == pytest.approx([0, 10, 20])
    assert part["chosen"].tolist() == [False, True, False]  # ten points are allowed, not twenty
    assert set(part["test_accuracy"]) == set(part["test_adversary"]) == {80}  # at the chosen one


def test_what_is_picked_is_compared_with_the_undefended_merge(paths):
    (row,) = ibvs.picked(paths, {"badnets": 80}, {"badnets": 100}, {"badnets": 3})[
        lambda t: t["defender"] == ibvs.MEAN
    ].to_dict("records")
    assert (row["scale"], row["ASR drop"], row["clean cost"], row["zero line"]) == (0.5, 30, 20, 3)


def test_placebos_have_the_norm_of_the_vector(tiny):
    one, drift = noise_vector(tiny["base"], 1), noise_vector(tiny["base"], 2, 0.5)
    found = ibvs.placebos(one, drift, 0)
    assert tuple(found) == ibvs.PLACEBOS
    assert [v.norm() for v in found.values()] == pytest.approx([one.norm()] * 3, rel=1e-5)
    assert found[ibvs.TWO_SEEDS].cosine(drift) == pytest.approx(1, abs=1e-5)
    assert found[ibvs.REVERSED].cosine(drift) == pytest.approx(-1, abs=1e-5)


def test_the_asr_left_at_a_cost_lies_between_the_strengths():
    cost, asr = [0, 2, 1, 4], [80, 60, 50, 40]  # the third strength costs less than the second
    assert reached(cost, 1, asr) == 70 and reached(cost, 3, asr) == 45
    assert math.isnan(reached(cost, 10, asr))


def test_the_frontier_in_numbers(paths):
    row = ibvs.at_cost(paths, (1, 5, 30)).iloc[0]
    assert row["longest λ"] == 1 and row["its cost"] == pytest.approx(20) and row["its ASR"] == 10
    assert row["ASR at 5 points"] == pytest.approx(65)  # half way from 80 to 50
    assert row["ASR at 1 points"] == pytest.approx(77) and math.isnan(row["ASR at 30 points"])


def test_where_triggered_images_go():
    task = blank_task("blank", [0, 0, 0, 2, 2, 2, 2, 2, 1])
    model = Dial(lambda *_: torch.tensor([1, 0, 2, 3, 1, 2, 4, 4, 1]), 0)
    found = ibvs.destinations(model, task, "white", 1, [2, 3])
    assert found == {  # of eight images: a two that stays a two is not lost to the defender
        "target": 25.0,
        "own class": 25.0,
        "a class of the defender's": 25.0,
        "another class": 25.0,
    }
    assert ibvs.destinations(model, task, "white", 1, [])["another class"] == 50


ATTACKS = ["badnets", "mine", "badmerging-off", "sbv"]


@pytest.fixture
def compared():
    """Drops of ASR by defender: two classes (10 and 20), their mean 12, and so on; before: 90."""
    drops = {"class a": 10, "class b": 20, ibvs.MEAN: 12, ibvs.SAME: 31, ibvs.OTHER: 7}
    drops |= {ibvs.TWO_SEEDS: -2, ibvs.REVERSED: 2, ibvs.NOISE: 4, ibvs.ORACLE: 60}
    rows = []
    for attack in ATTACKS:
        for name, drop in drops.items():
            if attack in ATTACKS[2:] and name in ("class a", "class b", ibvs.SAME, ibvs.NOISE):
                continue  # not tried against these two
            scale, drop = (0.5 if name == "class a" else 1.0), drop + (attack == "mine")
            rows += [
                {
                    "attack": attack,
                    "defender": name,
                    "scale": s,
                    "chosen": s == scale,
                    "asr": 90 - drop * s / scale,
                    "ASR drop": drop * s / scale,
                    "clean cost": 1.0 + (name == "class b"),
                }
                for s in (0.5, 1.0)
            ]
    paths = pd.DataFrame(rows)
    picked = paths[paths["chosen"]]
    return ibvs.summary(picked, ATTACKS, ["class a", "class b"]), picked


def test_ibvs_its_placebos_and_the_oracle_by_hand(compared):
    at = compared[0].set_index(["defence", "attack"])
    drop = at["ASR drop"]
    assert drop["IBVS", "badnets"] == 15 and drop["IBVS", "mine"] == 16  # mean over two classes
    assert drop["IBVS", "sbv"] == 12 == drop["IBVS, mean vector", "sbv"]  # classes were not tried
    assert drop[ibvs.NOISE, "badnets"] == 4 and ibvs.NOISE not in at["asr"][:, "sbv"]
    best = ibvs.best_placebo(compared[0])
    assert best["ASR drop"].to_dict() == {"mine": 5, "badnets": 4, "badmerging-off": 2, "sbv": 2}
    assert best.loc["sbv", "defence"] == ibvs.REVERSED and best.loc["sbv", "asr"] == 88
    assert drop["oracle", "mine"] == 61 and at["clean cost"]["IBVS", "badnets"] == 1.5
    order = ["IBVS", "IBVS, mean vector", "IBVS, another task", *ibvs.PLACEBOS, "oracle"]
    assert list(dict.fromkeys(compared[0]["defence"])) == order


def test_the_numbers_behind_the_claims_of_ibvs(compared):
    assert ibvs.comparisons(*compared, "mine") == {
        "ibvs_asr_drop_badnets": 15,
        "ibvs_asr_drop_badmerging": 16,
        "ibvs_asr_drop_off": 12,
        "ibvs_asr_drop_sbv": 12,
        "ibvs_clean_cost": 1.5,
        "ibvs_minus_placebo_drop": 11,  # 16 less 5
        "oracle_asr_drop": 61,
        "ibvs_class_matters": 16,  # 32 less 16
        "ibvs_class_matters_badnets": 16,
    }


# Defences beside each other: notebook 09


RULE = {"tasks": TASKS, "scales": [0, 0.5, 1], "budget": 10.0}


def test_a_guarded_model_by_hand():
    found = defences.guarded(MERGED, lambda s: MERGED - s * MINUS, ATTACK, goal=TASK, **RULE)
    assert (found["scale"], found["ASR before"], found["ASR"]) == (0.5, 80, 50)
    assert (found["ASR drop"], found["clean cost"]) == (30, 20)
    assert found["low"] < 50 < found["high"]
    known = defences.guarded(MERGED, lambda s: MERGED, ATTACK, goal=TASK, before=(90, 95), **RULE)
    assert (known["scale"], known["ASR drop"], known["clean cost"]) == (1, 10, -5)


def test_each_vector_is_a_row_beside_the_zero_line():
    clean, vectors = Dial(falling, 1), {"ours": MINUS, "nothing": 0.0}
    table = defences.subtracted(MERGED, clean, vectors, ATTACK, goal=TASK, **RULE)
    assert list(table)[-2:] == ["zero line", "clean cost"]
    assert table["zero line"].tolist() == [10, 10] and table["ASR"].tolist() == [50, 80]
    assert table["clean cost"].tolist() == [20, 0] and table["scale"].tolist() == [0.5, 1]


@pytest.fixture
def two_defences():
    """In place of the ten: one with a strength, and one that needs many passes an image."""
    kept = dict(defence)
    defence.clear()

    @defence("turn", needs="the dial", label="turned (ours)")
    def turn(situation, *, most=1.0):
        """Turns the dial."""
        return situation.choose(lambda s: situation.merged - most * s * MINUS)[1]

    @defence("slow", passes="many")
    def slow(situation):
        """Looks twice."""
        return situation.merged

    yield
    defence.clear()
    defence.update(kept)


def test_every_registered_defence_is_a_row(two_defences):
    situation = Situation(
        merged=MERGED,
        encoder=None,
        base={},
        vectors={},
        parts={},
        accuracy=lambda m: defences.mean_accuracy(m, TASKS, "dev"),
        attack=ATTACK,
        scales=[0, 0.5],
        budget=10.0,
    )
    table = defences.rivals(
        {"badnets": situation},
        tasks=TASKS,
        goals={"badnets": TASK},
        zero={"badnets": 5.0},
        settings={"turn": {"most": 2.0}, "sample": 6},
        sample=6,
    ).set_index("defence")
    assert list(table.index) == ["none", "turned (ours)", "slow"]
    assert table["must know"].tolist() == ["nothing", "the dial", "nothing"]
    # the strength 0.5 of twice the vector costs twenty points: not allowed, so nothing is turned
    assert table["ASR"].tolist() == [80, 80, 100] and table["images"].tolist() == [10, 10, 6]
    assert table["ASR drop"].tolist() == [0, 0, 0]  # the slow one beside the same six images
    assert set(table["zero line"]) == {5.0} and set(table["clean cost"]) == {0}
    fig = figures_defences.rivals(csv(table.reset_index()), 1.0)
    assert [len(ax.patches) for ax in fig.axes] == [3, 3]
    plt.close("all")


def test_a_relative_drop_needs_something_to_drop_from():
    found = defences.relative_drop(pd.Series([10.0, 3.0]), pd.Series([50.0, 5.0]))
    assert found[0] == 20 and math.isnan(found[1])


def test_the_numbers_behind_the_claims_of_all_defences():
    ours, fake = (defence[name].label for name in ("ibvs", "placebo"))
    merging = pd.DataFrame(
        [(ours, 60, 30, 1.0), (ours, 8, 4, 3.0), (ours, 40, 10, 2.0), (fake, 40, 5, 9.0)],
        columns=["defender", "ASR before", "ASR drop", "clean cost"],
    )
    knows = pd.DataFrame({"value": ["unaware", "aware, own guess"], "ASR": [20, 45]})
    beside = pd.DataFrame({"defence": [ours, "fine-tuning"], "ASR drop": [14, 20]})
    found = defences.comparisons(
        merging, knows.assign(question="the attacker is"), beside.assign(attack="mine"), "mine"
    )
    assert found["ibvs_best_relative_drop"] == 50  # half of 60; half of 8 does not count
    assert found["ibvs_mean_drop"] == pytest.approx(44 / 3) and found["ibvs_worst_cost"] == 3
    assert found["ibvs_minus_placebo_everywhere"] == pytest.approx(44 / 3 - 5)
    assert found["ibvs_lost_to_aware"] == 25 and found["ibvs_minus_tuning"] == -6


# Knobs, and the defences that BadMerging was tested against: notebook 07


def test_several_backdoors_in_one_model_count_by_their_mean():
    pairs = (("white", 1), ("white", 2))
    both = recipes.Backdoor("mine", "blank", 1, "white", {}, None, "blank", pairs)
    clean = Dial(falling, 1)
    one, two = (
        ablations.turned("knob", 2, MERGED, clean, b, goal=TASK, adversary=TASK)
        for b in (ATTACK, both)
    )
    assert (one["ASR"], one["ASR, clean merge"], one["accuracy, adversary"]) == (80, 10, 100)
    # toward class 2, of five other images none is predicted as a two
    assert two["ASR"] == 40 and two["ASR, clean merge"] == 5 and two["attack"] == "mine"


LABELS = pd.DataFrame(
    {
        "class": [0, 1, 2, 3, 4],
        "norm": [30.0, 10.0, 28.0, 32.0, 70.0],  # as in test_detectors: the index is 6.745
        "rate": [100.0, 99.0, 98.9, 0.0, 100.0],
        "deviation": [0.0, 6.7, 0.7, -0.7, -13.5],
    }
)


def test_what_neural_cleanse_says_of_a_model():
    found = ablations.judged(LABELS, 2, TASK.classnames)
    assert found["anomaly index"] == pytest.approx(6.745, abs=1e-3) and found["flagged"]
    assert found["class that stands out"] == "one" and found["classes reached"] == 3
    assert (found["norm of the target (px)"], found["median norm (px)"]) == (28, 30)


def test_a_detector_that_is_registered_appears_beside_the_others():
    def judge(name):
        return pd.DataFrame({"model": ["base"], "anomaly index": [len(name)]})

    alone = ablations.by_detector("model", judge)
    assert "detector" not in alone and ablations.of_detector(alone, "any") is alone
    detector("mine", of="model")(lambda *args, **how: None)
    try:
        both = ablations.by_detector("model", judge)
    finally:
        detector.without("mine")
    assert both["detector"].tolist() == ["neural-cleanse", "mine"]
    assert ablations.of_detector(both, "mine")["anomaly index"].tolist() == [4]


def test_fine_pruning_takes_what_the_budget_allows_and_each_half_alone(tiny):
    """Accuracy is made to fall by ten points for every tenth of the units that is gone."""
    encoder, base = tiny["encoder"], tiny["base"]
    key = [name for name in base if name.endswith("mlp.c_proj.weight")][-1]

    def gone(model):
        return float((model.theta[key] == 0).all(0).float().mean())

    parts = {n: (s.images, torch.arange(24) % 5, s.head) for n, s in tiny["seen"].items()}
    share, found = ablations.fine_pruned(
        Model(encoder, base),
        encoder,
        parts,
        lambda model: 100 - 100 * gone(model),
        [0, 0.25, 0.5],
        blocks=1,
        steps=1,
        budget=30.0,
    )
    assert share == 0.25 and list(found) == ["nothing", "prune", "tune", "prune and tune"]
    assert [round(gone(model), 2) for model in found.values()] == [0, 0.25, 0, 0.25]
    assert not torch.equal(found["tune"].theta["proj"], base["proj"])
    assert torch.equal(found["prune"].theta["proj"], base["proj"])


class Bright:
    """A stand-in for an encoder: class 1 where the mean pixel is above one half."""

    def head(self, classnames, prompts):
        return None

    def predict(self, theta, images, head, trigger=None):
        x = images.permute(0, 3, 1, 2).float() / 255
        return ((x if trigger is None else trigger.paste(x)).mean((1, 2, 3)) > 0.5).long()


def test_a_detector_of_images_is_told_by_its_auroc():
    """Black images stay black at every scale (score 1), as white ones stay white; grey ones do
    not."""
    pasted = {"white": triggers.solid(4), "grey": triggers.solid(4, value=0.2)}
    found = ablations.told_apart("scale-up", Model(Bright(), {}), TASK, pasted, 1)
    assert found == {"AUROC, white": 0.5, "AUROC, grey": 0.0}


def test_the_numbers_behind_the_claims_of_the_knobs():
    rows = [
        ("merged tasks", 2, "mine", 90),
        ("merged tasks", 3, "mine", 70),
        ("backdoors in one model", 1, "mine", 80),
        ("backdoors in one model", 5, "mine", 50),
        ("models of one task, averaged", 1, "mine", 99),
        ("models of one task, averaged", 3, "mine", 95),
        ("models of one task, averaged", 3, "badnets", 65),
        ("what the adversary knows", "nothing", "mine", 60),
        ("what the adversary knows", "the other models", "mine", 85),
    ]
    table = pd.DataFrame(rows, columns=["knob", "value", "attack", "ASR"])
    assert ablations.comparisons(table, "mine", 3) == {
        "fewest_asr_over_tasks": 70,
        "asr_drop_many_backdoors": 30,
        "informed_gain": 25,
        "same_task_asr": 95,
        "same_task_badnets_asr": 65,
    }
    fig = figures_defences.ablations(csv(table.assign(**{"ASR, clean merge": 1.0})))
    shown = [ax.get_xlabel() for ax in fig.axes if ax.get_xlabel()]
    assert shown == list(dict.fromkeys(table["knob"]))
    plt.close("all")


# Figures


def test_the_figures_of_ibvs_are_drawn_from_their_saved_table(paths):
    zero, table = {"badnets": 10.0}, csv(paths)
    above, below = figures_defences.paths(table, zero, 1.0, []).axes
    assert len(above.lines) == len(below.lines) == 4  # two defenders, what is picked, a line
    (marked,) = [line for line in above.lines if line.get_label() == "λ that the rule picks"]
    assert marked.get_xydata().tolist() == [[0.5, 50]]  # not the oracle's
    (ax,) = figures_defences.frontier(table, zero, 1.0, [ibvs.MEAN]).axes
    assert ax.get_title() == "badnets" and len(ax.lines) == 5
    plt.close("all")


def test_the_other_figures_of_defences_are_drawn_from_their_saved_tables():
    line = {"ASR before": 80, "ASR": 50, "zero line": 10}
    rows = [
        {"merging": m, "attack": a, "defender": d, **line}
        for m in ("average", "ties")
        for a in ATTACKS[:2]
        for d in ("mean", "one", "placebo")
    ]
    fig = figures_defences.by_merging(csv(pd.DataFrame(rows)))
    assert [len(ax.lines) for ax in fig.axes] == [5, 5]
    assert fig.axes[0].lines[1].get_xydata().tolist() == [[50, 0.15], [50, -0.85]]
    cleanse = pd.DataFrame({"model": ["base", "merge"], "attacked": [False, True]})
    pruning = {"model": ["merge"] * 2, "defence": ["nothing", "prune"], "ASR": [80, 60]}
    scale = {"model": ["merge"], "AUROC, trigger": [0.9], "AUROC, random patch": [0.5]}
    parts = {"cleanse": cleanse.assign(**{"anomaly index": [6.4, math.inf]})}
    parts |= {"pruning": pd.DataFrame(pruning), "scale": pd.DataFrame(scale)}
    table = pd.concat(parts, names=["defence of"]).reset_index(level=0)
    fig = figures_defences.tested(csv(table))
    assert [len(ax.patches) for ax in fig.axes] == [2, 2, 2]
    finite, infinite = fig.axes[0].patches
    assert finite.get_facecolor() != infinite.get_facecolor()
    assert finite.get_width() == 6.4 < infinite.get_width()
    assert [note.get_text() for note in fig.axes[0].texts] == [" ∞"]
    plt.close("all")


def test_a_path_of_an_unknown_strength_is_refused(paths):
    with one_line("must contain 0"):
        defences.guarded(
            MERGED, lambda s: MERGED, ATTACK, goal=TASK, tasks=TASKS, scales=[0.5], budget=1.0
        )
