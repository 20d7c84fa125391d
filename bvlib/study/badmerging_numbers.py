"""What notebooks 01 and 06 say in numbers: headlines by name, and the measures of the claims, from
their tables of :mod:`bvlib.study.badmerging`."""

from collections.abc import Iterable, Mapping

import pandas as pd

from bvlib.attacks.recipes import FACTORIAL, attack
from bvlib.core import metrics
from bvlib.study import experiments
from bvlib.study.badmerging import Backdoors, Merge
from bvlib.study.experiments import Measured, TaskOf, flips

Numbers = dict[str, Measured]


def headline(
    backdoors: Backdoors, controls: Mapping, *, merge: Merge, model: Merge, task: TaskOf
) -> Numbers:
    """ASR of each attack alone, merged (by the run's method and by TIES), on the clean merges and
    the base, its controls, and the paired differences. ``controls`` are random patches by
    attack."""
    clean, clean_ties, found = merge(), merge(None, "ties"), {}
    for name, b in backdoors.items():
        goal, alone, merged = task(b.goal_task), model(b.theta), merge(b.theta)
        shown = {
            f"ASR {name}, alone": (alone, b.trigger),
            f"ASR {name}, merged": (merged, b.trigger),
            f"ASR {name}, merged by TIES": (merge(b.theta, "ties"), b.trigger),
            f"ASR {name} trigger, clean merge": (clean, b.trigger),
            f"ASR {name} trigger, clean merge by TIES": (clean_ties, b.trigger),
            f"ASR {name} trigger, base": (model(), b.trigger),
            f"ASR random patch, merge with {name}": (merged, controls[name]),
            f"false-target rate, merge with {name}": (merged, None),
        }
        for label, (seen, pasted) in shown.items():
            found[label] = experiments.asr(seen, goal, pasted, b.target)
        own, hits, zero = (flips(seen, b, goal) for seen in (alone, merged, clean))
        found[f"ASR {name}, alone minus merged"] = metrics.paired_difference(own, hits)
        zeroed = metrics.paired_difference(hits, zero)
        found[f"ASR {name} trigger, attacked minus clean merge"] = zeroed
    return found


def against(chosen: str, backdoors: Backdoors, *, merge: Merge, task: TaskOf) -> Numbers:
    """Merged ASR of the chosen attack minus that of BadNets and of each part of BadMerging alone,
    paired over images; without those that flip images of another task."""
    ours, found = backdoors[chosen], {}
    others = {name: b for name, b in backdoors.items() if name in FACTORIAL and name != chosen}
    hits = flips(merge(ours.theta), ours, task(ours.goal_task))
    for name, b in others.items():
        if b.goal_task == ours.goal_task:
            theirs = flips(merge(b.theta), b, task(b.goal_task))
            found[f"ASR {name}, merged"] = metrics.rate(theirs)
            found[f"merged ASR, {chosen} minus {name}"] = metrics.paired_difference(hits, theirs)
    return found


def measures(
    main: pd.DataFrame, attacks: pd.DataFrame, chosen: str, method: str
) -> dict[str, float]:
    """Measures of notebook 01 from its main table and its table of attacks; ``method`` is the
    run's merging."""
    at, at_alone = main.set_index(["merging", "attack"]), attacks.set_index("attack")
    ours, badnets = at.loc[(method, chosen)], at_alone.loc["badnets"]
    return {
        "clean_accuracy": ours["CA"],
        "backdoored_accuracy": ours["BA"],
        "ca_minus_ba": ours["CA"] - ours["BA"],
        "badmerging_merged_asr": ours["ASR"],
        "badmerging_merged_asr_ties": at.loc[("ties", chosen), "ASR"],
        "badmerging_minus_clean_merge": ours["ASR"] - ours["ASR clean merge"],
        "badnets_single_asr": badnets["alone"],
        "badnets_merged_asr": badnets["merged"],
        "badnets_light_merged_asr": at_alone.loc["badnets-light", "merged"],
        "badmerging_minus_badnets": ours["ASR"] - badnets["merged"],
    }


def of(table: pd.DataFrame, column: str, name: str) -> pd.Series:
    """A column of a main table for one attack, by merging method."""
    return table[table["attack"] == name].set_index("merging")[column]


def classical(names: Iterable[str]) -> list[str]:
    """The attacks that were published elsewhere than in BadMerging: their reference says so."""
    known = [(name, attack[name].reference) for name in names]
    return [name for name, where in known if where and not where.startswith("BadMerging")]


def best_classical(main: pd.DataFrame, method: str) -> str | None:
    """The classical attack of a main table with the highest ASR under a merging method; None when
    there is none."""
    names = classical(dict.fromkeys(main["attack"]))
    return max(names, key=lambda name: of(main, "ASR", name)[method], default=None)


def headline_in_full(
    main: pd.DataFrame, off: pd.DataFrame, chosen: str, method: str
) -> dict[str, float]:
    """ASR of the chosen attack and of BadMerging-Off under every merging method of the main table,
    and of every other attack under ``method``."""
    found = {}
    for each in main["merging"].unique():
        for name, table in ((chosen, main), ("badmerging-off", off)):
            found[f"ASR {name}, {each}"] = of(table, "ASR", name)[each]
            zero = of(table, "ASR, clean merge", name)[each]
            found[f"ASR {name} trigger, clean merge, {each}"] = zero
    for name in main.loc[main["attack"] != chosen, "attack"].unique():
        found[f"ASR {name}, merged ({method})"] = of(main, "ASR", name)[method]
    return found


NAMED = {  # measures of one merging method each
    "badmerging_asr_regmean": "regmean",
    "badmerging_asr_adamerging": "adamerging_layerwise",
    "badmerging_asr_surgery": "surgery",
}
OFF = {"off_minus_clean_merge": "ASR - clean merge", "off_ca_minus_ba": "CA - BA"}
ADDS = {  # measures of one part each: the attack and its part
    "universal_adds": ("badmerging-on", "universal trigger"),
    "interpolation_adds": ("badmerging-on", "interpolation"),
    "augmentation_adds": ("badmerging-off", "augmentation"),
    "shadow_adds": ("badmerging-off", "shadow classes"),
}


def measures_in_full(
    main: pd.DataFrame, off: pd.DataFrame, parts: pd.DataFrame, chosen: str, method: str
) -> dict[str, float]:
    """Measures of notebook 06; one of a merging method, or of classical attacks, that the tables
    do not have is left out."""
    ours, theirs = of(main, "ASR", chosen), of(off, "ASR", "badmerging-off")
    found = {measure: ours[name] for measure, name in NAMED.items() if name in ours}
    if best := best_classical(main, method):
        found["classical_merged_asr"] = of(main, "ASR", best)[method]
        found["badmerging_minus_best_classical"] = ours[method] - found["classical_merged_asr"]
    found |= {"off_asr": theirs[method], "off_asr_worst": theirs.min()}
    for measure, column in OFF.items():
        found[measure] = of(off, column, "badmerging-off")[method]
    usual = parts[parts["setting"] == "default"].set_index(["attack", "part taken out"])
    return found | {measure: usual.loc[part, "difference"] for measure, part in ADDS.items()}
