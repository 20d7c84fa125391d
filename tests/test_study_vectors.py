"""What the notebooks on backdoor vectors compute, on numbers worked out by hand."""

import io
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import one_line

from bvlib.attacks import recipes, triggers
from bvlib.attacks.sbv import sbv_rule
from bvlib.core.encoder import Model
from bvlib.core.vectors import TaskVector
from bvlib.study import anatomy, figures_vectors, sbv, sbv_grid, scaling, transfer
from bvlib.study.experiments import reached

# A model of two weights: an image of value v and class 0 is taken for class 1 with the trigger when
# the first weight is above v, without it when it is above v + 10. The second weight does nothing.


class Threshold:
    def head(self, classnames, prompts):
        return None

    def predict(self, theta, images, head, trigger=None):
        above = float(theta["w"][0]) > images[:, 0] + (0 if trigger else 10)
        return torch.where(above, 1, images[:, 1].long())


def model(*weights):
    return Model(Threshold(), {"w": torch.tensor(weights)})


def vector(*weights):
    return TaskVector({"w": torch.tensor(weights)})


def attack(*weights, name="t", target=1):
    return SimpleNamespace(
        vector=vector(*weights),
        theta=model(*weights).theta,
        trigger="patch",
        target=target,
        task="t",
        goal_task="t",
        attack=name,
    )


VALUES = [[float(v), 0] for v in range(10)]  # ten images of class 0
SPLIT = SimpleNamespace(images=torch.tensor(VALUES), labels=torch.zeros(10, dtype=torch.int64))
TASK = SimpleNamespace(name="t", classnames=["a", "b"], prompts=["{}"], test=SPLIT, dev=SPLIT)
CLEAN = model(0.0, 0.0)
ABOUT = {"backdoor": attack(6.0, 8.0), "tasks": {"t": TASK}, "goal": TASK}


@pytest.fixture
def last():
    """A rule of a plugin's own: the last vector."""
    sbv_rule("last")(lambda vectors: vectors[-1])
    yield
    sbv_rule.without("last")


# Scaling


def test_a_scaling_curve_and_what_is_read_from_it():
    own = attack(5.0, 0.0)
    curve = scaling.curves(
        {"BV": own.vector, "placebo": vector(0.0, 5.0)},
        lambda v: model(1.0, 0.0) + v,
        [-1, 0, 0.5, 1, 3],
        tasks={"t": TASK},
        backdoor=own,
        adversary=TASK,
        goal=TASK,
    )
    ours = scaling.of(curve, "BV")  # the first weight is −4, 1, 3.5, 6, 16
    assert ours["asr"].tolist() == [0, 10, 40, 60, 100]
    assert ours["accuracy"].tolist() == [100, 100, 100, 100, 40]
    assert scaling.of(curve, "placebo")["asr"].tolist() == [10] * 5
    assert scaling.at(ours, 0.6, "asr") == 40
    assert scaling.measures(ours) == {
        "asr_rise_over_scaling": 50,
        "ca_flat_over_scaling": 0,
        "asr_fall_below_zero": 10,
    }
    assert scaling.steps(ours, (-1, 1, 3)).to_dict("list") == {
        "λ_BV": [-1, 1, 3],
        "accuracy": [100, 100, 40],
        "ASR": [0, 60, 100],
    }
    drawn = figures_vectors.scaling(again(curve), {"accuracy": {"p": [(0, 1)]}, "asr": {}}, "t")
    assert [len(ax.lines) for ax in drawn.axes] == [3, 2]


def test_an_analogy_adds_the_same_vector_to_every_host():
    hosts = {"itself": model(1.0, 0.0), "far": model(9.0, 0.0)}
    table = scaling.analogy(
        hosts, attack(4.0, 0.0), vector(0.0, 4.0), task=TASK, goal=TASK
    ).set_index("host")
    assert table["ASR"].tolist() == [10, 90] and table["ASR + BV"].tolist() == [50, 100]
    assert table["ASR + placebo (noise)"].tolist() == [10, 90]
    assert table["accuracy"].tolist() == [100, 100] and table["accuracy + BV"].tolist() == [100, 70]


# Sparse backdoor vectors

BVS = [vector(6.0, 8.0), vector(2.0, -8.0)]
FAMILIES = {"place": BVS, "seed": [BVS[0], vector(6.0, 0.0)]}
TODAY = [
    ("one BV", "-"),
    ("one BV, sparse", "-"),
    ("placebo", "-"),
    ("sign-consistent", "place"),
    ("sign-consistent, dense", "place"),
    ("mean", "place"),
    ("mean, dense", "place"),
    ("TIES", "place"),
    ("sum", "place"),
    ("sign-consistent", "seed"),
    ("mean, dense", "seed"),
    ("sum", "seed"),
]


def made(**settings):
    settings = {"density": 0.5, "seed": 0, "agreement": 1.0} | settings
    return sbv.candidates(FAMILIES, vector(1.0, 0.0), **settings)


def test_the_rows_that_compare_rules():
    vectors = made()
    assert list(vectors) == TODAY
    found = {key: v.tensors["w"].tolist() for key, v in vectors.items()}
    assert found["one BV", "-"] == [6, 8] and found["one BV, sparse", "-"] == [0, 8]
    assert found["sign-consistent", "place"] == [4, 0]  # of (6, 8) and (2, −8)
    assert found["mean, dense", "place"] == [4, 0] and found["sum", "seed"] == [12, 0]
    assert found["sign-consistent", "seed"] == [6, 0]  # a zero agrees with nobody
    assert made(agreement=0.5)["sign-consistent, dense", "place"].tensors["w"].tolist() == [4, 0]


def test_a_rule_of_ones_own_adds_rows_under_its_name(last):
    vectors = made()
    own = [("last", "place"), ("last, dense", "place"), ("last", "seed")]
    assert [key for key in vectors if key not in own] == TODAY and set(own) <= set(vectors)
    assert vectors["last", "place"].tensors["w"].tolist() == [0, -8]
    assert vectors["last, dense", "place"].tensors["w"].tolist() == [2, -8]


def test_vectors_are_compared_as_they_are_and_at_equal_norm():
    vectors = {("one BV", "-"): BVS[0], ("mine", "place"): vector(4.0, 0.0)}
    table = sbv.compare(vectors, BVS[0], lambda v: CLEAN + v, zero=5.0, **ABOUT)
    one, mine = table.to_dict("records")
    assert one["ASR as it is"] == one["ASR norm-matched"] == 60 and one["norm"] == 10
    assert mine["ASR as it is"] == 40 and mine["ASR norm-matched"] == 100  # 4, and 10
    assert mine["ASR of one BV of that norm"] == 30  # 0.4 · 6
    assert mine["density"] == 0.5 and mine["cosine with one BV"] == pytest.approx(0.6)
    assert mine["BA as it is"] == 100 and mine["zero line"] == 5
    assert len(figures_vectors.sbv(again(table)).axes[0].patches) == 2


def test_the_lead_over_the_best_other_rule(last):
    def table(**asr):
        rows = [{"vector": k, "differ by": "place", "ASR norm-matched": v} for k, v in asr.items()]
        return pd.DataFrame(rows).replace("sc", "sign-consistent")

    known = {"sc": 70, "sc, dense": 99, "mean": 60, "TIES": 65, "sum": 99}
    assert sbv.lead(table(**known), "place") == 5
    assert sbv.lead(table(**known, last=80), "place") == -10


def test_how_alike_vectors_are():
    found = sbv.alike([vector(3.0, 4.0), vector(3.0, -4.0)], 0.5, 1.0)
    assert found == {
        "vectors": 2,
        "cosine, mean over pairs": pytest.approx((9 - 16) / 25),
        "same sign in all (% of entries)": 50,
        "cosine of sparse mean and sparse sign-consistent": pytest.approx(1),
    }
    assert sbv.alike([vector(3.0, 4.0)], 1.0, 1.0)["cosine, mean over pairs"] == 0


def path(name, *asr):
    """Scales 0, 1, 2; BA falls from 90 by 10 a step for one BV, by 20 for others."""
    step = 10 if name == "one BV" else 20
    ba = [90 - step * i for i in range(3)]
    points = {"scale": [0, 1, 2], "accuracy": ba, "adversary_accuracy": ba}
    return pd.DataFrame({**points, "asr": asr, "low": asr, "high": asr, "vector": name})


def test_at_equal_asr_each_path_is_read_where_it_first_gets_there():
    assert sbv.half_way(20) == 60
    one = path("one BV", 20, 40, 80)
    assert reached([20, 40, 80], 60, [0, 1, 2]) == 1.5
    assert reached([20, 80, 40], 80, [0, 1, 2]) == 1  # the first time
    assert reached([20, 20, 80], 50, [0, 1, 2]) == 1.5
    assert reached([0, 1, 1, 2], 1, [80, 60, 40, 20]) == 60  # of a plateau the first point
    assert math.isnan(reached([20, 40, 80], 81, [0, 1, 2]))
    assert math.isnan(reached([20, 40, 80], 19, [0, 1, 2]))
    every = pd.concat([one, path("mine", 20, 60, 100), path("never", 0, 1, 2)])
    table = sbv.at_equal_asr(every, 60)
    assert table.loc["mine"].tolist() == [60, 1, 70, 70, -5, -5]
    assert table.loc["one BV", "BA, minus one BV"] == 0 and table.loc["never"].isna().sum() == 5


def test_vectors_beside_one_bv_as_they_are_and_at_its_norm():
    # at λ_BV 0.5: (6, 8) gives 30 %, (8, 0) 40 %, and at the norm 10 that is (10, 0), 50 %
    vectors = {sbv.ONE: vector(6.0, 8.0), "sbv": vector(8.0, 0.0)}
    table = sbv.side_by_side(vectors, lambda v: model(*v.tensors["w"].tolist()), 0.5, **ABOUT)
    columns = ["compared", "vector", "norm", "ASR", "minus one BV"]
    assert table[columns].to_numpy().tolist() == [
        ["as they are", "one BV", 5, 30, 0],
        ["as they are", "sbv", 4, 40, 10],
        ["at equal norm", "one BV", 5, 30, 0],
        ["at equal norm", "sbv", 5, 50, 20],
    ]
    assert table["BA"].tolist() == [100] * 4 and (table["from"] <= table["minus one BV"]).all()


def test_what_the_claims_read_of_an_sbv():
    ours = "sign-consistent"
    found = [
        ("as they are", sbv.ONE, 0, 90),
        ("as they are", sbv.SPARSE, -1, 90),
        ("as they are", ours, 12, 87),
        ("at equal norm", sbv.ONE, 0, 90),
        ("at equal norm", sbv.SPARSE, 3, 90),
        ("at equal norm", ours, -4, 91),
    ]
    beside = pd.DataFrame(found, columns=["compared", "vector", "minus one BV", "BA"])
    found = [
        (sbv.ONE, "-", 60, 60, 60),
        ("sum", "place", 95, 97, 50),
        ("sum", "seed", 0, 0, 0),
        ("mean", "place", 70, 70, 64),
        (ours, "place", 72, 72, 62),
    ]
    asrs = ["ASR as it is", "ASR of one BV of that norm", "ASR norm-matched"]
    compared = pd.DataFrame(found, columns=["vector", "differ by", *asrs])
    equal = pd.DataFrame(
        {"BA, minus one BV": [0, -6], "BA, adversary's task, minus one BV": [0, -7]},
        index=[sbv.ONE, ours],
    )
    assert sbv.numbers(beside, compared, equal, "place") == {
        "sbv_minus_single_as_they_are": 12,
        "sbv_ba_cost_as_they_are": 3,
        "sbv_minus_single": -4,
        "sbv_ba_cost": -1,
        "sparsity_adds": 3,
        "sbv_as_it_is_minus_single": 35,
        "sbv_minus_single_of_its_norm": -2,
        "sbv_ba_at_equal_asr": -6,
        "sbv_own_ba_at_equal_asr": -7,
        "sign_consistent_minus_best_rule": -2,
    }


def test_what_a_merger_could_see_of_an_upload():
    table = sbv.seen(
        {"mine": model(6.0, 8.0)},
        model(0.0, 0.0).theta,
        vector(5.0, 0.0),
        backdoor=attack(6.0, 8.0),
        task=TASK,
        goal=TASK,
    )
    assert table.iloc[0].tolist() == ["mine", 2, pytest.approx(0.6), 100, 60]


# Sweeps


def rate(v):
    """Of the merge attacked with v: the first weight, in tens of percent."""
    return SimpleNamespace(percent=10 * float(v.tensors["w"][0]), low=0.0, high=100.0)


def test_the_grid_has_every_rule_number_and_density(last):
    families = {"place": [vector(6.0, 8.0), vector(2.0, -6.0)], "seed": FAMILIES["seed"]}
    table = sbv_grid.grid(families, rate, counts=[1, 2, 5], densities=[0.5, 1.0])
    assert sbv.distinct() == ["mean", "ties", "sign_consistent", "last"]  # the sum is the mean
    assert len(table) == 2 * (2 + 4 * 2)  # one BV once, five vectors are two
    cell = table.set_index(["differ by", "k", "rule", "density"])
    assert cell.loc[("place", 1, "one BV", 1.0), ["ASR", "minus one BV"]].tolist() == [60, 0]
    assert cell.loc[("place", 2, "mean", 0.5), "ASR"] == pytest.approx(100)  # (4, 0) at norm 10
    assert cell.loc[("place", 2, "last", 0.5), "ASR"] == 0  # (0, −6)
    best, above = sbv_grid.best(table)
    assert best["ASR"] == pytest.approx(100) and 0 < above < 100
    assert len(figures_vectors.sbv_grid(again(table), 60, 5).axes) == 4 * 2
    named = sbv_grid.grid(families, rate, rules=["sum"], counts=[2], densities=[1.0])
    assert set(named["rule"]) == {"sum"}
    with one_line("'men'", "did you mean 'mean'"):
        sbv_grid.grid(families, rate, rules=["men"], counts=[2], densities=[1.0])
    with one_line("no cell", "counts"):
        sbv_grid.best(table[table["k"] == 1])


def test_how_many_must_agree():
    three = {"place": [vector(3.0, 4.0), vector(3.0, 4.0), vector(3.0, -4.0)]}
    table = sbv_grid.by_agreement(three, rate, agreements=[0.6, 1.0], densities=[1.0])
    assert table["entries kept"].tolist() == [1, 0.5]
    assert table["ASR"].tolist() == pytest.approx([30, 50])  # (3, 4), and (3, 0) at norm 5


def test_the_same_uploads_under_every_merge():
    uploads = {"one BV": model(4.0, 0.0).theta, "mine": model(8.0, 0.0).theta}

    def halved(theta):
        return model(1.0, 0.0) + 0.5 * TaskVector(theta) if theta else model(1.0, 0.0)

    def whole(theta):
        return Model(Threshold(), theta) if theta else CLEAN

    merges = {("merging algorithm", "halved"): halved, ("merged tasks", 2): whole}
    table = sbv_grid.everywhere(uploads, merges, **ABOUT).set_index(["value", "vector"])
    assert table["ASR"].tolist() == [30, 50, 40, 80]
    assert table["minus one BV"].tolist() == [0, 20, 0, 40]
    assert table["ASR, clean merge"].tolist() == [10, 10, 0, 0] and (table["BA"] == 100).all()
    drawn = figures_vectors.sbv_everywhere(again(table.reset_index()))
    assert [len(ax.lines) for ax in drawn.axes] == [3, 3, 0]


# Transfer


def again(table):
    """The table as it is read from its CSV: a figure can be redrawn from that alone."""
    return pd.read_csv(io.StringIO(table.to_csv(index=False, float_format="%.6g")))


def test_transfer_is_a_share_of_what_the_own_vector_does():
    assert transfer.normalised(50, 10, 90) == 50
    assert transfer.normalised(90, 10, 90) == 100 and transfer.normalised(0, 10, 90) == -12.5
    assert math.isnan(transfer.normalised(50, 10, 19.9))
    assert math.isnan(transfer.normalised(50, 90, 10))
    assert transfer.normalised(12, 10, 15, least=5) == 40
    assert math.isnan(transfer.normalised(50, 10, math.nan))


def test_the_axes_hold_the_own_attack_first_and_each_class_once():
    axes = transfer.axes(
        lambda **differs: differs,
        lambda by, count: [f"{by} {i}" for i in range(count)],
        target=3,
        classnames="abcdef",
        classes=[1, 3, 5],
        tasks=["t", "u", "v"],
        seed=7,
        count=2,
    )
    assert list(axes) == ["place", "seed", "target class", "task"]
    assert list(axes["place"].values()) == ["place 0", "place 1"]
    assert axes["seed"] == {"seed 7": "seed 0", "seed 8": "seed 1"}
    assert axes["target class"] == {"d": {"target": 3}, "b": {"target": 1}}
    assert axes["task"] == {"t": {"task": "t"}, "u": {"task": "u"}}


def test_addition_and_subtraction_by_hand():
    own = attack(8.0, 0.0)
    table = transfer.transfer(
        CLEAN, own, {"itself": own.vector, "half": vector(4.0, 3.0), "not": vector(0.0, 5.0)}, TASK
    ).set_index("vector")
    assert table["asr_added"].tolist() == [80, 40, 0] and table["added"].tolist() == [100, 50, 0]
    assert table["asr_removed"].tolist() == [0, 40, 80]
    assert table["removed"].tolist() == [100, 50, 0]
    assert table["cosine"].tolist() == [1, pytest.approx(0.8), 0]
    far = transfer.transfer(CLEAN, own, {"half": vector(4.0, 3.0)}, TASK, scale=0.5)
    assert far["added"].tolist() == [50] and far["asr_added"].tolist() == [20]


def pairs(*rows):
    names = ["axis", "vector", "attack", "cosine", "added", "removed", "itself", "placebo"]
    return pd.DataFrame(rows, columns=names)


TABLE = pairs(
    ("place", "a", "a", 1.0, 100, 100, True, False),
    ("place", "b", "a", 0.8, 90, 60, False, False),
    ("place", "a", "b", 0.6, 70, 80, False, False),
    ("place", "noise", "a", 0.0, 10, 5, False, True),
    ("seed", transfer.OWN_TWIN, "a", 0.5, 60, 90, False, False),
    ("seed", "c", "a", 0.7, 80, 70, False, False),
    ("target class", "d", "a", 0.2, -10, 10, False, False),
    ("target class", "e", "a", 0.3, 30, 20, False, False),
    ("task", "f", "a", 0.4, math.nan, math.nan, False, False),
)


def test_means_leave_out_the_vector_itself_and_the_one_with_its_own_twin():
    means = transfer.means(TABLE)
    assert means["added", "mean"].drop("task").to_dict() == {
        "place": 80,
        "placebos": 10,
        "seed": 80,
        "target class": 10,
    }
    assert means.loc["place", "removed"].tolist() == [2, 70, 60, 80]
    orders = transfer.orders(means["added", "mean"], "transfer")
    assert orders["transfer_place_minus_class"] == orders["transfer_seed_minus_class"] == 70
    assert math.isnan(orders["transfer_seed_minus_task"]) and len(orders) == 4


def test_rank_correlations_within_what_shares_a_target_and_what_does_not():
    ranks = transfer.rank_correlations(TABLE).set_index("vectors")
    assert ranks["pairs"].tolist() == [6, 4, 2]  # no placebo, not the vector itself, no blank
    assert ranks["added"].tolist() == [1, 1, 1]  # rises with cosine everywhere
    assert ranks["removed"].tolist() == pytest.approx([1 - 6 * 20 / 210, -1, 1])
    drawn = figures_vectors.cosine_transfer(again(transfer.cross(TABLE)))
    assert drawn.axes[1].get_title() == "by subtraction; rank correlation 0.43"


def test_every_vector_is_named_once():
    own, other = attack(1.0, 0.0), attack(0.0, 1.0)
    vectors = transfer.once({"place": {"a": own, "b": other}, "seed": {"c": own, "d": other}})
    assert list(vectors) == ["place: a", "place: b", "seed: d"]
    table = transfer.cosines(vectors)
    assert table.loc["place: b"].tolist() == [0, 1, 1]
    saved = again(table.rename_axis("vector").reset_index())
    drawn = figures_vectors.cosines(saved, "vectors", 4, 3)
    assert [t.get_text() for t in drawn.axes[0].get_yticklabels()] == list(vectors)


# The anatomy of vectors


def test_where_a_vector_lives_beside_a_clean_one():
    parts = {"resblocks.0.mlp.c_fc.weight": [[3.0, 0.0]], "proj": [[0.0, 4.0]]}
    bv = TaskVector({key: torch.tensor(value) for key, value in parts.items()})
    clean = TaskVector({key: torch.ones(1, 2) for key in parts})
    table = anatomy.where(bv, clean)
    assert table["by"].tolist() == ["kind", "kind", "block", "block"]
    assert table["share of squared norm (%)"].tolist() == pytest.approx([36, 64] * 2)
    assert table["the same, clean task vector (%)"].tolist() == pytest.approx([50] * 4)
    assert len(figures_vectors.anatomy(again(table)).axes) == 2
    lengths = anatomy.lengths({"BV": bv}, bv, clean).iloc[0].tolist()
    assert lengths == ["BV", pytest.approx(5), pytest.approx(2.5), pytest.approx(1)]
    assert anatomy.spectra({"BV": bv})["stable rank"].tolist() == [1]


def test_a_frontier_is_drawn_from_its_table():
    names = ("one BV", "sign-consistent", "one BV, sparse", "placebo")
    table = pd.concat([path(name, 20, 40, 80) for name in names])
    assert [len(ax.lines) for ax in figures_vectors.frontier(again(table), "m", "t").axes] == [
        4
    ] * 3


# On a real encoder


@pytest.fixture
def placebo(backdoor):
    return backdoor.vector.random_like(0)


def test_cosines_are_a_symmetric_matrix_with_ones(backdoor, placebo):
    vectors = {
        "own": backdoor.vector,
        "half": 0.5 * backdoor.vector,
        "minus": -backdoor.vector,
        "placebo": placebo,
    }
    table = transfer.cosines(vectors)
    assert list(table.index) == list(table.columns) == list(vectors)
    assert (np.diag(table) == 1).all() and np.array_equal(table, table.T)
    assert table.loc["own", "half"] == pytest.approx(1) and table.loc[
        "half", "minus"
    ] == pytest.approx(-1)
    assert table.loc["own", "placebo"] == backdoor.vector.cosine(placebo) != 0


def test_transfer_of_itself_is_100(encoder, shapes, backdoor, placebo):
    zero = TaskVector({key: 0 * tensor for key, tensor in backdoor.vector.tensors.items()})
    table = transfer.transfer(
        Model(encoder, backdoor.clean),
        backdoor,
        {"itself": backdoor.vector, "nothing": zero, "placebo": placebo},
        shapes,
    ).set_index("vector")
    assert table.loc["itself", ["cosine", "added", "removed"]].tolist() == pytest.approx(
        [1, 100, 100]
    )
    assert table.loc["nothing", ["added", "removed"]].tolist() == [0, 0]
    assert table.loc["placebo", "cosine"] == pytest.approx(0, abs=0.1)
    assert table.loc["placebo", "asr_added"] < table.loc["itself", "asr_added"]


def test_every_backdoor_on_an_axis_is_tried_on_every_other_with_placebos_of_its_norm(
    encoder, shapes, backdoor, placebo
):
    one = recipes.Backdoor(
        "badnets",
        "shapes",
        backdoor.target,
        backdoor.trigger,
        backdoor.theta,
        backdoor.vector,
        "shapes",
    )
    two = recipes.Backdoor(
        "badnets",
        "shapes",
        backdoor.target,
        triggers.random_patch(8, 0),
        backdoor.clean + placebo,
        placebo,
        "shapes",
    )
    axes = {"place": {"a": one, "b": two}, "seed": {"c": one}}
    table = transfer.matrix(
        axes,
        clean=lambda task: Model(encoder, backdoor.clean),
        task=lambda name: shapes,
        drift=placebo,
        more={"seed": {"other": placebo}},
    )
    assert table.groupby("axis", sort=False).size().to_dict() == {"place": 2 * 4, "seed": 1 * 4}
    assert (
        set(table[table["placebo"]]["vector"]) == set(transfer.PLACEBOS)
        and not table[table["itself"]]["placebo"].any()
    )
    assert set(table[table["axis"] == "seed"]["vector"]) == {"c", "other", *transfer.PLACEBOS}
    own = table[(table["attack"] == "a") & table["itself"]].iloc[0]
    assert own["added"] == pytest.approx(100) and own["cosine"] == pytest.approx(1)
    clean = Model(encoder, backdoor.clean)
    alone = transfer.transfer(clean, one, {"b": placebo}, shapes).iloc[0]
    cell = table[
        (table["axis"] == "place") & (table["attack"] == "a") & (table["vector"] == "b")
    ].iloc[0]
    assert cell["asr_added"] == alone["asr_added"] and cell["asr_removed"] == alone["asr_removed"]
    assert figures_vectors.transfer(table).axes[0].get_title() == "place: θ_clean + BV"
