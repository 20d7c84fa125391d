"""The papers' checkable statements as data, and the one rule that says what a run makes of them.

BadMerging is Zhang et al., CCS 2024 (arXiv 2408.07362); Backdoor Vectors is Pawlak et al., 2025 (arXiv
2510.08016). Each claim has one primary test on one measure, written before the run. A test on a small
world checks a direction, never a paper's number, and a direction holds only if the 95 % t-interval over
seeds of the paired per-seed values lies wholly on its side. All seeds of a profile share one base.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import unknown

STATUSES = ("same direction", "inconclusive", "differs", "not run")
ABOVE = ("positive difference", "at least")
BELOW = ("negative difference", "at most")

MEASURES = {
    "fine_tuning_gain": "own fine-tunes minus zero-shot, mean accuracy, points",
    "gap_recovered": "share of that gain which the clean merge keeps, mean over tasks, %",
    "clean_accuracy": "CA: accuracy of the clean merge, averaged over the merged tasks, %",
    "backdoored_accuracy": "BA: the same for the merge that holds the backdoored model, %",
    "ca_minus_ba": "clean_accuracy minus backdoored_accuracy, paired on the same images, points",
    "badnets_single_asr": "ASR of BadNets on the adversary's single model, %",
    "badnets_merged_asr": "ASR of BadNets after merging by task arithmetic, %",
    "badmerging_merged_asr": "ASR of BadMerging-On after merging by task arithmetic, %",
    "badmerging_merged_asr_ties": "ASR of BadMerging-On after merging by TIES, %",
    "badmerging_minus_badnets": "merged ASR of BadMerging-On minus that of BadNets, points",
    "badmerging_minus_clean_merge": "ASR of the BadMerging-On trigger: attacked minus clean merge, points",
    "ca_flat_over_scaling": "largest |change of accuracy| from its value at lambda_BV 0, over 0 to 1, points",
    "asr_rise_over_scaling": "ASR at lambda_BV 1 minus ASR at lambda_BV 0, points",
    "transfer_place_minus_class": "transfer across patch places minus across target classes, % of own effect",
    "transfer_seed_minus_class": "transfer across seeds minus across target classes, % of own effect",
    "transfer_seed_minus_task": "transfer across seeds minus across tasks, % of own effect",
    "sbv_minus_single": "merged ASR at equal norm with the sparse merged BV minus with one BV, points",
    "sbv_ba_cost": "backdoored accuracy with one BV minus with the sparse merged BV, points",
    "inherent_minus_random_base": "ASR on the base: universal minus random patch, points",
    "inherent_minus_random_clean_merge": "ASR on the clean merge: universal minus random patch, points",
    "ibvs_asr_drop_badnets": "merged ASR of BadNets before minus after IBVS, points",
    "ibvs_asr_drop_badmerging": "merged ASR of BadMerging-On before minus after IBVS, points",
    "ibvs_clean_cost": "clean accuracy before minus after IBVS, averaged over the merged tasks, points",
    "ibvs_minus_placebo_drop": "ASR drop of BadMerging-On by IBVS minus by placebo vectors, each at the scale that the rule picks, points",
}


@dataclass(frozen=True)
class Claim:
    """One statement of a paper and its primary test.

    `kind` says on which side of `bound` the interval of `measure` must lie: "positive difference" and
    "at least" above it, "negative difference" and "at most" below it. `expected` is the paper's value as
    text, `designed_in` marks what the choice of the base already asked for.
    """

    id: str
    statement: str
    where: str
    kind: str
    test: str
    expected: str
    measure: str
    bound: float = 0.0
    designed_in: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ABOVE + BELOW:
            raise unknown("kind of claim", self.kind, ABOVE + BELOW)
        if self.measure not in MEASURES:
            raise unknown("measure", self.measure, MEASURES)


def check(claim: Claim, per_seed_values: Sequence[float | None]) -> str:
    """The status of a claim given its measure on each seed: one of STATUSES.

    "same direction" or "differs" only if the t-interval over seeds excludes the bound; a single seed has
    no interval and is "inconclusive"; without a finite value the claim was "not run".
    """
    values = finite(per_seed_values)
    if not values:
        return "not run"
    if len(values) == 1:
        return "inconclusive"
    from .metrics import seed_interval

    _, low, high = seed_interval(values)
    if low <= claim.bound <= high:
        return "inconclusive"
    return "same direction" if (low > claim.bound) == (claim.kind in ABOVE) else "differs"


def finite(values: Sequence[float | None]) -> list[float]:
    """The values that are numbers: what is undefined on a seed (None, nan) is left out."""
    return [float(value) for value in values if value is not None and math.isfinite(value)]


CLAIMS = [
    Claim(
        "badmerging-classical-diluted", "A classical attack that succeeds on the single model is diluted by "
        "merging.", "BadMerging, motivation and main table", "at most",
        "ASR of BadNets after task arithmetic lies below 30 %",
        "below about 30 % (near 100 % on the single model)", "badnets_merged_asr", bound=30.0),
    Claim(
        "badmerging-beats-classical", "BadMerging-On survives merging where classical attacks do not.",
        "BadMerging, main table (ViT-B-32, CIFAR100, six tasks)", "positive difference",
        "merged ASR of BadMerging-On minus that of BadNets, same seed, task arithmetic",
        "98.1 % against below 30 %: at least 68 points", "badmerging_minus_badnets"),
    Claim(
        "badmerging-survives-ties", "BadMerging-On works whatever the merging algorithm is: here TIES.",
        "BadMerging, main table (99.26 % under TIES)", "at least",
        "ASR of BadMerging-On after TIES lies above 30 %, the ceiling of classical attacks",
        "99.3 %", "badmerging_merged_asr_ties", bound=30.0),
    Claim(
        "badmerging-keeps-utility", "Merging the backdoored model costs no clean accuracy.",
        "BadMerging, utility (76.51 against 76.39 %)", "at most",
        "CA minus BA lies below 1 point (our bound)", "0.1 points, all within about 0.2",
        "ca_minus_ba", bound=1.0),
    Claim(
        "badmerging-adds-to-clean-merge", "The attacked merge obeys the trigger more than a fully clean "
        "merge does.", "not in the papers: a third party's control with the official code",
        "positive difference",
        "ASR of the BadMerging-On trigger on the attacked minus on the clean merge",
        "99.99 against 83.12 %: 17 points (third party)", "badmerging_minus_clean_merge"),
    Claim(
        "bv-asr-rises", "Adding more of the backdoor vector raises ASR: theta = theta_clean + lambda_BV BV.",
        "Backdoor Vectors, scaling figure", "positive difference",
        "ASR at lambda_BV 1 minus at 0, adversary's single model",
        "59 to 100 points (from 0 to 41 % up to 100 %)", "asr_rise_over_scaling"),
    Claim(
        "bv-accuracy-flat", "Clean accuracy stays flat while the backdoor vector is scaled.",
        "Backdoor Vectors, scaling figure", "at most",
        "largest change of accuracy from lambda_BV 0, over 0 to 1, lies below 2 points (our bound)",
        "0.5 to 0.8 points", "ca_flat_over_scaling", bound=2.0),
    Claim(
        "transfer-place-over-class", "Backdoors transfer more across patch places than across target "
        "classes.",
        "Backdoor Vectors, backdoor transfer", "positive difference",
        "normalised transfer (our definition) across places minus across target classes",
        "positive; size not published", "transfer_place_minus_class"),
    Claim(
        "transfer-seed-over-class", "Backdoors transfer more across seeds than across target classes.",
        "Backdoor Vectors, backdoor transfer", "positive difference",
        "normalised transfer (our definition) across seeds minus across target classes",
        "positive; size not published", "transfer_seed_minus_class"),
    Claim(
        "transfer-seed-over-task", "Backdoors transfer more across seeds than across tasks.",
        "Backdoor Vectors, backdoor transfer", "positive difference",
        "normalised transfer (our definition) across seeds minus across tasks",
        "positive; size not published", "transfer_seed_minus_task"),
    Claim(
        "sbv-beats-single", "Several backdoor vectors merged and sparsified attack better than one.",
        "Backdoor Vectors, sparse backdoor vectors", "positive difference",
        "merged ASR at equal norm with the sign-consistent vector (our k and density) minus with one vector",
        "positive; size not published", "sbv_minus_single"),
    Claim(
        "sbv-keeps-accuracy", "The sparse merged vector costs no more clean accuracy than one vector.",
        "our reading of Backdoor Vectors, sparse backdoor vectors", "at most",
        "BA with one vector minus BA with the sign-consistent vector lies below 1 point (our bound)",
        "not published", "sbv_ba_cost", bound=1.0),
    Claim(
        "inherent-in-base", "The base itself obeys an optimised patch: the trigger is inherent.",
        "Backdoor Vectors, inherent triggers; value by a third party", "positive difference",
        "ASR on the untouched base: universal minus random patch of equal size",
        "about 96 % on CLIP ViT-B-32 (third party)", "inherent_minus_random_base", designed_in=True),
    Claim(
        "inherent-in-clean-merge", "A merge of clean models still obeys the inherent trigger.",
        "Backdoor Vectors, inherent triggers; value by a third party", "positive difference",
        "ASR on the clean merge: universal minus random patch of equal size",
        "83 % by task arithmetic, 94 % by TIES (third party)", "inherent_minus_random_clean_merge"),
    Claim(
        "ibvs-weakens-badnets", "Subtracting the BV of a simple injected trigger weakens an injected "
        "backdoor it never saw.", "Backdoor Vectors, IBVS", "positive difference",
        "merged ASR of BadNets before minus after IBVS, default defender",
        "positive, up to 100 points", "ibvs_asr_drop_badnets"),
    Claim(
        "ibvs-weakens-badmerging", "Subtracting the BV of a simple injected trigger weakens BadMerging.",
        "Backdoor Vectors, IBVS", "positive difference",
        "merged ASR of BadMerging-On before minus after IBVS, default defender",
        "positive, up to 100 points", "ibvs_asr_drop_badmerging"),
    Claim(
        "ibvs-beats-placebo", "It is the backdoor direction that helps, not moving the weights as such.",
        "our control, not in the paper", "positive difference",
        "ASR drop of BadMerging-On by IBVS minus by placebo vectors, each at the scale that the rule picks", "not published",
        "ibvs_minus_placebo_drop"),
    Claim(
        "ibvs-clean-cost", "The defence keeps clean accuracy.", "our reading of Backdoor Vectors, IBVS",
        "at most", "clean accuracy before minus after IBVS lies below 1 point (our bound)",
        "not published", "ibvs_clean_cost", bound=1.0),
]
