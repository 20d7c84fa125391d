"""Sparse Backdoor Vectors compared: as they are, at the norm of one BV, and at equal ASR.

A rule of ``attacks.sbv.sbv_rule`` that anyone registers has its rows here. The claims are those of
*Backdoor Vectors* (arXiv 2510.08016); comparing at equal norm is our stricter control. In every
function ``model(v)`` gives the merge that is attacked with θ_clean + v; rates are percent.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd

from bvlib.attacks.sbv import at_norm, merge_backdoors, sbv_rule
from bvlib.core import metrics
from bvlib.core.encoder import Model
from bvlib.core.vectors import StateDict, TaskVector
from bvlib.study.experiments import (
    Models,
    Tasks,
    accuracy,
    flips,
    hit,
    mean_accuracy,
    reached,
    row,
)
from bvlib.worlds.tasks import Task

PRIMARY = "sign_consistent"  # the rule of the primary comparison, fixed before it was run
ONE, SPARSE, PLACEBO = "one BV", "one BV, sparse", "placebo"
AS_THEY_ARE, AT_EQUAL_NORM = "as they are", "at equal norm"
Families = Mapping[str, Sequence[TaskVector]]
"""Backdoor vectors by what they differ by, the attack's own first in each."""


def label(rule: str) -> str:
    """What tables call a rule."""
    return sbv_rule[rule].more.get("label", rule)


def distinct() -> list[str]:
    """The rules that differ at equal norm: without those that are a multiple of another one."""
    return [name for name in sbv_rule if "multiple_of" not in sbv_rule[name].more]


def by_rule(
    bvs: Sequence[TaskVector], density: float, *, primary: bool = True, **settings
) -> Iterator[tuple[str, TaskVector]]:
    """(label, SBV) of every registered rule, the primary one first.

    Each is shown sparse and dense (merging without sparsity) as its rule says, sparse alone where
    the vectors differ in another way than the ``primary`` one. ``settings`` go to the rules that
    have them.
    """
    for name in sorted(sbv_rule, key=lambda name: name != PRIMARY):
        more = sbv_rule[name].more
        shown = more.get("shown", ("sparse", "dense"))
        for form in shown if primary else more.get("elsewhere", ("sparse",)):
            share, end = (density, "") if form == "sparse" else (1.0, ", dense")
            accepted = sbv_rule[name].accepts(settings)
            yield label(name) + end, merge_backdoors(name, bvs, density=share, **accepted)


def candidates(
    families: Families, drift: TaskVector, *, density: float, seed: int, **settings
) -> dict[tuple[str, str], TaskVector]:
    """What is compared, by (vector, what the BVs differ by): one BV, the same sparse, a placebo,
    and every rule.

    ``families`` are BVs by what they differ by, the primary way first and in each the attack's own
    BV first. The placebo is the sparse mean of ``drift`` (two clean models) and of noise like one
    BV.
    """
    first = next(iter(families))
    single = families[first][0]
    placebo = merge_backdoors("mean", [drift, single.random_like(seed)], density=density)
    alone = {ONE: single, SPARSE: single.sparsify(density), PLACEBO: placebo}
    found = {(name, "-"): vector for name, vector in alone.items()}
    for by, bvs in families.items():
        for name, vector in by_rule(bvs, density, primary=by == first, **settings):
            found[name, by] = vector
    return found


def alike(bvs: Sequence[TaskVector], density: float, agreement: float) -> dict[str, float]:
    """How alike some BVs are: cosine over pairs, entries of one sign (%), and what
    sign-consistency then changes in a sparse mean."""
    agreed = merge_backdoors(PRIMARY, bvs, density=1.0, agreement=agreement)
    sparse = merge_backdoors(PRIMARY, bvs, density=density, agreement=agreement)
    pairs = [a.cosine(b) for a in bvs for b in bvs if a is not b]
    mean = merge_backdoors("mean", bvs, density=density)
    return {
        "vectors": len(bvs),
        "cosine, mean over pairs": sum(pairs) / max(1, len(pairs)),
        "same sign in all (% of entries)": 100 * agreed.density(),
        "cosine of sparse mean and sparse sign-consistent": mean.cosine(sparse),
    }


def compare(
    vectors: Mapping[tuple[str, str], TaskVector],
    single: TaskVector,
    model: Callable[[TaskVector], Model],
    *,
    backdoor,
    tasks: Tasks,
    goal: Task,
    zero: float,
) -> pd.DataFrame:
    """ASR and BA of each vector as it is, beside one BV scaled to its norm, and at the norm of one
    BV.

    ``vectors`` as :func:`candidates` gives them, ``single`` the one BV; ``zero`` is the clean
    merge's ASR with the same trigger.
    """
    rows = []
    for (name, by), vector in vectors.items():
        models = model(vector), model(at_norm(single, vector.norm()))
        as_is, one = (hit(merged, backdoor, goal) for merged in models)
        matched = hit(model(at_norm(vector, single.norm())), backdoor, goal)
        found = {"vector": name, "differ by": by, "norm": vector.norm()}
        found |= {"density": vector.density(), "cosine with one BV": vector.cosine(single)}
        found |= row(as_is, "ASR as it is", "low as it is", "high as it is")
        found["ASR of one BV of that norm"] = one.percent
        found["BA as it is"] = mean_accuracy(models[0], tasks)
        rows.append({**found, **row(matched, "ASR norm-matched"), "zero line": zero})
    return pd.DataFrame(rows)


def lead(compared: pd.DataFrame, by: str) -> float:
    """ASR of the primary rule minus that of the best other one, at equal norm and density, in
    points; ``compared`` from :func:`compare`, ``by`` what the vectors differ by."""
    at_equal = compared[compared["differ by"] == by].set_index("vector")["ASR norm-matched"]
    others = [label(name) for name in distinct() if name != PRIMARY]
    return at_equal[label(PRIMARY)] - at_equal[at_equal.index.isin(others)].max()


def half_way(zero: float) -> float:
    """The ASR (%) half way from the clean merge's to 100 %."""
    return (zero + 100) / 2


def at_equal_asr(frontier: pd.DataFrame, level: float) -> pd.DataFrame:
    """What each vector keeps of BA where its ASR first reaches ``level``, and that minus what one
    BV keeps; by vector. ``frontier`` from :func:`study.scaling.curves`."""
    columns = {"scale": "λ_BV", "accuracy": "BA", "adversary_accuracy": "BA, adversary's task"}
    rows = {}
    for name, path in frontier.groupby("vector", sort=False):
        there = {new: reached(path["asr"], level, path[old]) for old, new in columns.items()}
        rows[name] = {"ASR": level, **there}
    table = pd.DataFrame(rows).T.rename_axis("vector")
    bas = table[["BA", "BA, adversary's task"]]
    return table.join((bas - bas.loc[ONE]).add_suffix(f", minus {ONE}"))


def side_by_side(
    vectors: Mapping[str, TaskVector],
    model: Callable[[TaskVector], Model],
    scale: float,
    *,
    backdoor,
    tasks: Tasks,
    goal: Task,
) -> pd.DataFrame:
    """Each vector beside one BV (``vectors[ONE]``) at one λ_BV: as they are, then all at the norm
    of one BV.

    Columns: compared, vector, norm (at λ_BV), ASR, low, high, BA (%), and "minus one BV", the
    difference of the ASRs on the same images in points, with "from" and "to" as its interval.
    """
    norm, rows = vectors[ONE].norm(), []
    for compared in (AS_THEY_ARE, AT_EQUAL_NORM):
        fit = at_norm if compared == AT_EQUAL_NORM else lambda vector, _: vector
        scaled = {name: scale * fit(vector, norm) for name, vector in vectors.items()}
        models = {name: model(vector) for name, vector in scaled.items()}
        hits = {name: flips(merged, backdoor, goal) for name, merged in models.items()}
        for name, merged in models.items():
            found = {"compared": compared, "vector": name, "norm": scaled[name].norm()}
            found |= row(metrics.rate(hits[name])) | {"BA": mean_accuracy(merged, tasks)}
            pair = metrics.paired_difference(hits[name], hits[ONE])
            rows.append({**found, **row(pair, f"minus {ONE}", "from", "to")})
    return pd.DataFrame(rows)


def numbers(
    beside: pd.DataFrame, compared: pd.DataFrame, equal: pd.DataFrame, by: str
) -> dict[str, float]:
    """What the claims on SBVs read, in points, by name of the measure.

    ``beside`` from :func:`side_by_side`, ``compared`` from :func:`compare`, ``equal`` from
    :func:`at_equal_asr`; ``by`` is what the vectors of the primary comparison differ by.
    """
    at, ours = beside.set_index(["compared", "vector"]), label(PRIMARY)
    lead_over_one, ba = at[f"minus {ONE}"], at["BA"]
    rows = compared.set_index(["vector", "differ by"])
    one, summed = rows.loc[ONE, "-"], rows.loc["sum", by]
    return {
        "sbv_minus_single_as_they_are": lead_over_one[AS_THEY_ARE, ours],
        "sbv_ba_cost_as_they_are": ba[AS_THEY_ARE, ONE] - ba[AS_THEY_ARE, ours],
        "sbv_minus_single": lead_over_one[AT_EQUAL_NORM, ours],
        "sbv_ba_cost": ba[AT_EQUAL_NORM, ONE] - ba[AT_EQUAL_NORM, ours],
        "sparsity_adds": lead_over_one[AT_EQUAL_NORM, SPARSE],
        "sbv_as_it_is_minus_single": summed["ASR as it is"] - one["ASR as it is"],
        "sbv_minus_single_of_its_norm": summed["ASR as it is"]
        - summed["ASR of one BV of that norm"],
        "sbv_ba_at_equal_asr": equal.loc[ours, f"BA, minus {ONE}"],
        "sbv_own_ba_at_equal_asr": equal.loc[ours, f"BA, adversary's task, minus {ONE}"],
        "sign_consistent_minus_best_rule": lead(compared, by),
    }


def seen(
    uploads: Models, base: StateDict, other: TaskVector, *, backdoor, task: Task, goal: Task
) -> pd.DataFrame:
    """What a merger could see of uploaded models of ``task`` without their clean twins: length of
    the task vector and cosine, beside ``other``, that of another clean model; and what it could
    not see, the ASR."""
    rows = []
    for name, model in uploads.items():
        upload = TaskVector.between(model.theta, base)
        found = {"uploaded": name, "norm over that of a clean one": upload.norm() / other.norm()}
        found["cosine with a clean one"] = upload.cosine(other)
        found["accuracy, own model"] = accuracy(model, task).percent
        rows.append({**found, "ASR, own model": hit(model, backdoor, goal).percent})
    return pd.DataFrame(rows)
