"""Sweeps of Sparse Backdoor Vectors: rule × density × number × agreement, and through every merge.

Exploratory: one grid, no correction for the number of cells.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import pandas as pd

from bvlib.attacks.sbv import at_norm, merge_backdoors
from bvlib.core import metrics
from bvlib.core.encoder import Model
from bvlib.core.errors import BvError
from bvlib.core.vectors import StateDict, TaskVector
from bvlib.study.experiments import Tasks, flips, hit, mean_accuracy, row
from bvlib.study.sbv import ONE, PRIMARY, Families, distinct
from bvlib.worlds.tasks import Task

Rated = Callable[[TaskVector], metrics.Rate]
Names, Shares = Sequence[str], Sequence[float]


def grid(
    families: Families, asr: Rated, *, rules: Names = (), counts: Sequence[int], densities: Shares
) -> pd.DataFrame:
    """ASR (%) of SBVs at the norm of one BV, by what the BVs differ by, their number, rule and
    density.

    ``families`` are BVs by what they differ by, the attack's own first in each; ``asr(v)`` that of
    the merge attacked with θ_clean + v. ``rules``: all that are :func:`~study.sbv.distinct` unless
    named. A number above a family's size is its size. Raises BvError for an unknown rule.
    """
    rules, single = rules or distinct(), next(iter(families.values()))[0]
    one, rows = asr(single).percent, []
    for by, bvs in families.items():
        for k in dict.fromkeys(min(k, len(bvs)) for k in counts):
            for rule in rules if k > 1 else rules[:1]:
                for share in densities:
                    v = merge_backdoors(rule, bvs[:k], density=share)
                    found = {"differ by": by, "k": k, "rule": rule if k > 1 else ONE}
                    found |= {"density": share, "norm as it is": v.norm()}
                    found |= {"entries kept": v.density(), "cosine with one BV": v.cosine(single)}
                    rows.append(found | row(asr(at_norm(v, single.norm()))))
    table = pd.DataFrame(rows)
    return table.assign(**{"minus one BV": table["ASR"] - one})


def by_agreement(
    families: Families, asr: Rated, *, agreements: Shares, densities: Shares, count: int = 3
) -> pd.DataFrame:
    """ASR (%) of the sign-consistent SBV of ``count`` BVs at the norm of one BV, by the share of
    them that must agree in sign; arguments as for :func:`grid`."""
    single, rows = next(iter(families.values()))[0], []
    for by, needed, share in product(families, agreements, densities):
        v = merge_backdoors(PRIMARY, families[by][:count], density=share, agreement=needed)
        hit = asr(at_norm(v, single.norm())).percent
        rows.append((by, needed, share, v.density(), hit))
    columns = ["differ by", "agreement", "density", "entries kept", "ASR"]
    return pd.DataFrame(rows, columns=columns)


def everywhere(
    attacks: Mapping[str, StateDict],
    merges: Mapping[tuple[str, str], Callable[[StateDict | None], Model]],
    *,
    backdoor,
    tasks: Tasks,
    goal: Task,
) -> pd.DataFrame:
    """ASR and BA (%) of uploaded models under many merges; ASR minus one BV's paired over images.

    ``attacks`` are weights by name, "one BV" among them; ``merges`` by (setting, value) give the
    merge with such weights, the clean one for None.
    """
    rows = []
    for (setting, value), merge in merges.items():
        models = {name: merge(theta) for name, theta in attacks.items()}
        hits = {name: flips(model, backdoor, goal) for name, model in models.items()}
        zero = hit(merge(None), backdoor, goal).percent
        for name, model in models.items():
            found = {"setting": setting, "value": str(value), "vector": name}
            found["ASR"] = 100 * hits[name].mean()
            found |= row(metrics.paired_difference(hits[name], hits[ONE]), "minus one BV")
            rows.append({**found, "ASR, clean merge": zero, "BA": mean_accuracy(model, tasks)})
    return pd.DataFrame(rows)


def best(table: pd.DataFrame) -> tuple[pd.Series, float]:
    """Of the cells of :func:`grid` that merge several BVs: the one with the highest ASR, and the
    share (%) that is above one BV. Raises BvError when there is no such cell."""
    several = table[table["k"] > 1]
    if several.empty:
        raise BvError("no cell of the grid merges several BVs: add a number above 1 to counts")
    return several.loc[several["ASR"].idxmax()], 100 * (several["minus one BV"] > 0).mean()
