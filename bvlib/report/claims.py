"""The papers' checkable statements as data, and the one rule that says what a run makes of them.

BadMerging is Zhang et al., CCS 2024 (arXiv 2408.07362); Backdoor Vectors is Pawlak et al., 2025
(arXiv 2510.08016). Each claim has one primary test on one measure, written before the run unless
it is marked. A test on a small world checks a direction, never a paper's number, and a direction
holds only if the 95 % t-interval over seeds of the paired per-seed values lies wholly on its side.
All seeds of a profile share one base.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bvlib.core.errors import unknown

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
    "badmerging_minus_clean_merge": "ASR of the BadMerging-On trigger: attacked minus clean "
    "merge, points",
    "badmerging_asr_regmean": "ASR of BadMerging-On after merging by RegMean, %",
    "badmerging_asr_adamerging": "ASR of BadMerging-On after merging by layer-wise AdaMerging, %",
    "badmerging_asr_surgery": "ASR of BadMerging-On after AdaMerging with Surgery, %",
    "classical_merged_asr": "merged ASR of the classical attack that does best, %",
    "badmerging_minus_best_classical": "merged ASR of BadMerging-On minus that of the best "
    "classical attack, points",
    "universal_adds": "merged ASR of BadMerging-On minus that without the universal trigger, "
    "points",
    "interpolation_adds": "merged ASR of BadMerging-On minus that without feature interpolation, "
    "points",
    "off_asr": "ASR of BadMerging-Off after merging by task arithmetic, %",
    "off_asr_worst": "ASR of BadMerging-Off under the merging algorithm where it does worst, %",
    "off_minus_clean_merge": "ASR of the BadMerging-Off trigger: attacked minus clean merge, "
    "points",
    "off_ca_minus_ba": "clean_accuracy minus that of the merge attacked by BadMerging-Off, points",
    "augmentation_adds": "merged ASR of BadMerging-Off minus that without adversarial "
    "augmentation, points",
    "shadow_adds": "merged ASR of BadMerging-Off minus that without shadow classes, points",
    "fewest_asr_over_tasks": "smallest merged ASR of BadMerging-On over the numbers of merged "
    "tasks, %",
    "asr_drop_many_backdoors": "merged ASR with one backdoor minus the mean with five in one "
    "model, points",
    "informed_gain": "merged ASR of an adversary that knows the other models minus one that does "
    "not, points",
    "same_task_asr": "ASR of BadMerging-On in the average of five models of its task, %",
    "same_task_badnets_asr": "ASR of BadNets in the average of five models of its task, %",
    "cleanse_index": "Neural Cleanse's anomaly index of the BadMerging-On model, index",
    "fine_pruning_asr": "merged ASR of BadMerging-On after Fine-Pruning, %",
    "scale_up_auroc": "AUROC of Scale-Up on the merge attacked by BadMerging-On (50 is chance), %",
    "ca_flat_over_scaling": "largest |change of accuracy| from its value at lambda_BV 0, over 0 "
    "to 1, points",
    "asr_rise_over_scaling": "ASR at lambda_BV 1 minus ASR at lambda_BV 0, points",
    "transfer_place_minus_class": "transfer across patch places minus across target classes, % of "
    "own effect",
    "transfer_seed_minus_class": "transfer across seeds minus across target classes, % of own "
    "effect",
    "transfer_place_minus_task": "transfer across patch places minus across tasks, % of own effect",
    "transfer_seed_minus_task": "transfer across seeds minus across tasks, % of own effect",
    "removal_place_minus_class": "transfer by subtraction across patch places minus across target "
    "classes, % of own effect",
    "removal_seed_minus_class": "transfer by subtraction across seeds minus across target "
    "classes, % of own effect",
    "removal_place_minus_task": "transfer by subtraction across patch places minus across tasks, "
    "% of own effect",
    "removal_seed_minus_task": "transfer by subtraction across seeds minus across tasks, % of own "
    "effect",
    "badnets_place_minus_class": "BadNets: transfer across patch places minus across target "
    "classes, % of own effect",
    "badnets_seed_minus_class": "BadNets: transfer across seeds minus across target classes, % of "
    "own effect",
    "badnets_seed_minus_task": "BadNets: transfer across seeds minus across tasks, % of own effect",
    "asr_fall_below_zero": "ASR at lambda_BV 0 minus ASR at lambda_BV -1, points",
    "analogy_gain": "ASR that the BV adds to a clean fine-tune on other data of the same task, "
    "points",
    "sbv_minus_single": "merged ASR at equal norm with the sparse merged BV minus with one BV, "
    "points",
    "sbv_ba_cost": "backdoored accuracy with one BV minus with the sparse merged BV, points",
    "sbv_ba_at_equal_asr": "BA with the sparse merged BV minus with one BV, at equal merged ASR, "
    "points",
    "sbv_own_ba_at_equal_asr": "the same on the adversary's own task, points",
    "sign_consistent_minus_best_rule": "merged ASR at equal norm with the sign-consistent rule "
    "minus with the better of mean and TIES, points",
    "sparsity_adds": "merged ASR at equal norm with one BV sparsified minus with one BV, points",
    "sbv_as_it_is_minus_single": "merged ASR of the summed sparse BV as it is minus that of one "
    "BV, points",
    "sbv_minus_single_of_its_norm": "merged ASR of the summed sparse BV as it is minus that of "
    "one BV scaled to its norm, points",
    "sbv_minus_single_worst": "sbv_minus_single under the merging algorithm where it is smallest, "
    "points",
    "sbv_minus_single_best": "sbv_minus_single under the merging algorithm where it is largest, "
    "points",
    "inherent_minus_random_base": "ASR on the base: universal minus random patch, points",
    "inherent_minus_random_clean_merge": "ASR on the clean merge: universal minus random patch, "
    "points",
    "inherent_share": "share of the images flipped by the merge attacked with BadMerging-On that "
    "the clean merge flips too, %",
    "inherent_share_any_merge": "that share, mean over the merging algorithms that need no "
    "images, %",
    "ibvs_asr_drop_badnets": "merged ASR of BadNets before minus after IBVS, points",
    "ibvs_asr_drop_badmerging": "merged ASR of BadMerging-On before minus after IBVS, points",
    "ibvs_asr_drop_off": "merged ASR of BadMerging-Off before minus after IBVS, points",
    "ibvs_asr_drop_sbv": "merged ASR of an SBV attack before minus after IBVS, points",
    "oracle_asr_drop": "merged ASR of BadMerging-On before minus after subtracting its own BV, "
    "points",
    "ibvs_class_matters": "ASR drop of BadMerging-On with the attacker's target class minus with "
    "other classes, points",
    "ibvs_class_matters_badnets": "ASR drop of BadNets with the attacker's target class minus "
    "with other classes, points",
    "ibvs_best_relative_drop": "largest share of an attack's merged ASR that IBVS removes, over "
    "attacks and merging algorithms, %",
    "ibvs_mean_drop": "ASR drop by IBVS, mean over four attacks and all merging algorithms, points",
    "ibvs_minus_placebo_everywhere": "that mean minus the same for a placebo of equal norm, points",
    "ibvs_worst_cost": "largest clean cost of IBVS over attacks and merging algorithms, points",
    "ibvs_lost_to_aware": "ASR after IBVS of an attacker who knows of it minus of one who does "
    "not, points",
    "ibvs_minus_tuning": "ASR drop of BadMerging-On by IBVS minus by fine-tuning on clean dev "
    "images, points",
    "ibvs_clean_cost": "clean accuracy before minus after IBVS, averaged over the merged tasks, "
    "points",
    "ibvs_minus_placebo_drop": "ASR drop of BadMerging-On by IBVS minus by placebo vectors, each "
    "at the scale that the rule picks, points",
}


@dataclass(frozen=True)
class Claim:
    """One statement of a paper and its primary test.

    `kind` says on which side of `bound` the interval of `measure` must lie: "positive difference"
    and "at least" above it, "negative difference" and "at most" below it. `expected` is the
    paper's value as text, `designed_in` marks what the choice of the base already asked for,
    `later` a test that was written after the first runs. `figure` is the stem of the figure that
    shows the measure, as in ``lab.figure("scaling", ...)``.
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
    figure: str = ""
    later: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ABOVE + BELOW:
            raise unknown("kind of claim", self.kind, ABOVE + BELOW)
        if self.measure not in MEASURES:
            raise unknown("measure", self.measure, MEASURES)


def check(claim: Claim, per_seed_values: Sequence[float | None]) -> str:
    """The status of a claim given its measure on each seed: one of STATUSES.

    "same direction" or "differs" only if the t-interval over seeds excludes the bound; a single
    seed has no interval and is "inconclusive"; without a finite value the claim was "not run".
    """
    values = finite(per_seed_values)
    if not values:
        return "not run"
    if len(values) == 1:
        return "inconclusive"
    from bvlib.core.metrics import seed_interval

    _, low, high = seed_interval(values)
    if low <= claim.bound <= high:
        return "inconclusive"
    return "same direction" if (low > claim.bound) == (claim.kind in ABOVE) else "differs"


def finite(values: Sequence[float | None]) -> list[float]:
    """The values that are numbers: what is undefined on a seed (None, nan) is left out."""
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def _transfer(one: str, other: str, removed: bool = False) -> Claim:
    """Backdoors transfer more across the axis `one` than across `other`, by addition or by
    subtraction."""
    axes = {"place": "patch places", "seed": "seeds", "class": "target classes", "task": "tasks"}
    told = f"transfer more across {axes[one]} than across {axes[other]}."
    return Claim(
        f"transfer-{'removal-' if removed else ''}{one}-over-{other}",
        f"By subtraction, too, backdoors {told}" if removed else f"Backdoors {told}",
        "Backdoor Vectors, backdoor transfer",
        "positive difference",
        f"normalised transfer{' by subtraction' if removed else ''} (our definition) across "
        f"{axes[one]} minus across {axes[other]}",
        "positive; size not published",
        f"{'removal' if removed else 'transfer'}_{one}_minus_{other}",
        figure="transfer",
        later=removed,
    )


CLAIMS = [
    Claim(
        "badmerging-classical-diluted",
        "A classical attack that succeeds on the single model is diluted by merging.",
        "BadMerging, motivation and main table",
        "at most",
        "ASR of BadNets after task arithmetic lies below 30 %",
        "below about 30 % (near 100 % on the single model)",
        "badnets_merged_asr",
        bound=30.0,
        figure="asr_rows",
    ),
    Claim(
        "badmerging-beats-classical",
        "BadMerging-On survives merging where classical attacks do not.",
        "BadMerging, main table (ViT-B-32, CIFAR100, six tasks)",
        "positive difference",
        "merged ASR of BadMerging-On minus that of BadNets, same seed, task arithmetic",
        "98.1 % against below 30 %: at least 68 points",
        "badmerging_minus_badnets",
        figure="asr_rows",
    ),
    Claim(
        "badmerging-survives-ties",
        "BadMerging-On works whatever the merging algorithm is: here TIES.",
        "BadMerging, main table (99.26 % under TIES)",
        "at least",
        "ASR of BadMerging-On after TIES lies above 30 %, the paper's ceiling of classical attacks",
        "99.3 %",
        "badmerging_merged_asr_ties",
        bound=30.0,
        figure="main_in_full",
    ),
    Claim(
        "badmerging-keeps-utility",
        "Merging the backdoored model costs no clean accuracy.",
        "BadMerging, utility (76.51 against 76.39 %)",
        "at most",
        "CA minus BA lies below 1 point (our bound)",
        "0.1 points, all within about 0.2",
        "ca_minus_ba",
        bound=1.0,
        figure="main_in_full",
    ),
    Claim(
        "badmerging-adds-to-clean-merge",
        "The attacked merge obeys the trigger more than a fully clean merge does.",
        "not in the papers: a third party's control with the official code",
        "positive difference",
        "ASR of the BadMerging-On trigger on the attacked minus on the clean merge",
        "99.99 against 83.12 %: 17 points (third party)",
        "badmerging_minus_clean_merge",
        figure="asr_rows",
    ),
    Claim(
        "badmerging-survives-regmean",
        "BadMerging-On works whatever the merging algorithm is: here RegMean.",
        "BadMerging, main table (96.71 % under RegMean)",
        "at least",
        "ASR of BadMerging-On after RegMean lies above 30 %, the paper's ceiling of classical "
        "attacks",
        "96.7 %",
        "badmerging_asr_regmean",
        bound=30.0,
        figure="main_in_full",
    ),
    Claim(
        "badmerging-survives-adamerging",
        "BadMerging-On works whatever the merging algorithm is: here AdaMerging.",
        "BadMerging, main table (99.48 % under AdaMerging)",
        "at least",
        "ASR of BadMerging-On after layer-wise AdaMerging on dev images lies above 30 %",
        "99.5 %",
        "badmerging_asr_adamerging",
        bound=30.0,
        figure="main_in_full",
    ),
    Claim(
        "badmerging-survives-surgery",
        "BadMerging-On works whatever the merging algorithm is: here Surgery.",
        "BadMerging, main table (99.15 % under Surgery)",
        "at least",
        "ASR of BadMerging-On after AdaMerging with Surgery lies above 30 %",
        "99.2 %",
        "badmerging_asr_surgery",
        bound=30.0,
        figure="main_in_full",
    ),
    Claim(
        "badmerging-all-classical-diluted",
        "Every classical attack is diluted by merging.",
        "BadMerging, main table",
        "at most",
        "merged ASR of the best classical attack lies below 30 %, task arithmetic",
        "below about 30 %",
        "classical_merged_asr",
        bound=30.0,
        figure="by_coefficient",
    ),
    Claim(
        "badmerging-beats-all-classical",
        "BadMerging-On survives merging better than any classical attack.",
        "BadMerging, main table",
        "positive difference",
        "merged ASR of BadMerging-On minus that of the best classical attack, same seed, task "
        "arithmetic",
        "at least 68 points",
        "badmerging_minus_best_classical",
        figure="by_coefficient",
    ),
    Claim(
        "badmerging-universal-adds",
        "The universal trigger adds to BadMerging-On.",
        "BadMerging, ablation of the parts",
        "positive difference",
        "merged ASR with minus without it (white square), task arithmetic",
        "positive; size not known to us",
        "universal_adds",
        figure="parts",
    ),
    Claim(
        "badmerging-interpolation-adds",
        "The interpolated loss adds to BadMerging-On.",
        "BadMerging, ablation of the parts",
        "positive difference",
        "merged ASR with minus without it (plain loss), task arithmetic",
        "positive; size not known to us",
        "interpolation_adds",
        figure="parts",
    ),
    Claim(
        "badmerging-off-works",
        "Off-task: a class of a task that the adversary does not train is reached.",
        "BadMerging, off-task table",
        "at least",
        "ASR of BadMerging-Off after task arithmetic lies above 30 %",
        "89 to 96 %",
        "off_asr",
        bound=30.0,
        figure="off_targets",
    ),
    Claim(
        "badmerging-off-any-merge",
        "The off-task attack works under every merging algorithm.",
        "BadMerging, off-task table",
        "at least",
        "its ASR lies above 30 % under the algorithm where it does worst",
        "89 to 96 % over five",
        "off_asr_worst",
        bound=30.0,
        figure="off_targets",
    ),
    Claim(
        "badmerging-off-adds",
        "Off-task, the attacked merge obeys the trigger more than a fully clean merge does.",
        "our control, not in the paper",
        "positive difference",
        "ASR of the BadMerging-Off trigger on the attacked minus on the clean merge",
        "not published",
        "off_minus_clean_merge",
        figure="off_targets",
    ),
    Claim(
        "badmerging-off-utility",
        "The off-task attack costs no clean accuracy.",
        "BadMerging, utility",
        "at most",
        "CA minus BA lies below 1 point (our bound)",
        "within about 0.2 points",
        "off_ca_minus_ba",
        bound=1.0,
        figure="off_targets",
    ),
    Claim(
        "badmerging-off-augmentation",
        "Adversarial augmentation of the references adds to the off-task attack.",
        "BadMerging, ablation of the parts",
        "positive difference",
        "merged ASR with minus without it, task arithmetic",
        "positive; size not known to us",
        "augmentation_adds",
        figure="parts",
    ),
    Claim(
        "badmerging-off-shadows",
        "Shadow classes add to the off-task attack.",
        "BadMerging, ablation of the parts",
        "positive difference",
        "merged ASR with shadow classes minus with the adversary's own classes in their place",
        "positive; size not known to us",
        "shadow_adds",
        figure="parts",
    ),
    Claim(
        "badmerging-any-number-of-tasks",
        "BadMerging-On works for any number of merged tasks.",
        "BadMerging, ablation (2 to 8 tasks)",
        "at least",
        "smallest ASR over 2 to 6 merged tasks lies above 30 %",
        "above 92 %",
        "fewest_asr_over_tasks",
        bound=30.0,
        figure="ablations",
    ),
    Claim(
        "badmerging-many-backdoors",
        "Many backdoors fit into one model.",
        "BadMerging, ablation (5 to 15 backdoors)",
        "at most",
        "mean ASR with five backdoors lies less than 10 points (our bound) below that with one",
        "2.3 points (98.8 to 96.5 %)",
        "asr_drop_many_backdoors",
        bound=10.0,
        figure="ablations",
    ),
    Claim(
        "badmerging-blind-costs-little",
        "Knowing the other models would help the adversary little.",
        "BadMerging, ablation",
        "at most",
        "its gain lies below 10 points (our bound)",
        "1.9 points (98.1 to 100 %)",
        "informed_gain",
        bound=10.0,
        figure="ablations",
    ),
    Claim(
        "badmerging-same-task",
        "BadMerging-On survives the average of several models of its own task.",
        "BadMerging, single-task merging",
        "at least",
        "ASR in the average of five lies above 30 %",
        "above 90 %",
        "same_task_asr",
        bound=30.0,
        figure="ablations",
    ),
    Claim(
        "badmerging-same-task-classical",
        "In the average of several models of one task classical attacks vanish.",
        "BadMerging, single-task merging",
        "at most",
        "ASR of BadNets in the average of five lies below 30 %",
        "about 0",
        "same_task_badnets_asr",
        bound=30.0,
        figure="ablations",
    ),
    Claim(
        "badmerging-evades-cleanse",
        "Neural Cleanse does not flag the BadMerging model.",
        "BadMerging, defences",
        "at most",
        "anomaly index of the attacked model lies below 2",
        "about 1.2",
        "cleanse_index",
        bound=2.0,
        figure="defences",
    ),
    Claim(
        "badmerging-survives-pruning",
        "Fine-Pruning does not remove BadMerging.",
        "BadMerging, defences (appendix)",
        "at least",
        "merged ASR after pruning and tuning lies above 30 %",
        "fails; numbers not known to us",
        "fine_pruning_asr",
        bound=30.0,
        figure="defences",
    ),
    Claim(
        "badmerging-evades-scale-up",
        "Scale-Up does not tell triggered from clean images.",
        "BadMerging, defences (appendix)",
        "at most",
        "AUROC on the attacked merge lies below 70 % (our bound)",
        "fails; numbers not known to us",
        "scale_up_auroc",
        bound=70.0,
        figure="defences",
    ),
    Claim(
        "bv-asr-rises",
        "Adding more of the backdoor vector raises ASR: theta = theta_clean + lambda_BV BV.",
        "Backdoor Vectors, scaling figure",
        "positive difference",
        "ASR at lambda_BV 1 minus at 0, adversary's single model",
        "59 to 100 points (from 0 to 41 % up to 100 %)",
        "asr_rise_over_scaling",
        figure="scaling",
    ),
    Claim(
        "bv-accuracy-flat",
        "Clean accuracy stays flat while the backdoor vector is scaled.",
        "Backdoor Vectors, scaling figure",
        "at most",
        "largest change of accuracy from lambda_BV 0, over 0 to 1, lies below 2 points (our bound)",
        "0.5 to 0.8 points",
        "ca_flat_over_scaling",
        bound=2.0,
        figure="scaling",
    ),
    _transfer("place", "class"),
    _transfer("seed", "class"),
    _transfer("seed", "task"),
    _transfer("place", "task"),
    *(
        _transfer(one, other, removed=True)
        for other in ("class", "task")
        for one in ("place", "seed")
    ),
    Claim(
        "transfer-classical-seed-over-class",
        "The same for a classical attack: more across seeds than across target classes.",
        "our control: BadNets, whose trigger means nothing to the base",
        "positive difference",
        "normalised transfer of BadNets across seeds minus across target classes",
        "not published",
        "badnets_seed_minus_class",
        figure="transfer_badnets",
    ),
    Claim(
        "transfer-classical-seed-over-task",
        "The same for a classical attack: more across seeds than across tasks.",
        "our control: BadNets, whose trigger means nothing to the base",
        "positive difference",
        "normalised transfer of BadNets across seeds minus across tasks",
        "not published",
        "badnets_seed_minus_task",
        figure="transfer_badnets",
    ),
    Claim(
        "bv-subtraction-removes",
        "Subtracting a backdoor's own vector from the merge weakens it.",
        "Backdoor Vectors, abstract (subtraction)",
        "positive difference",
        "merged ASR of BadMerging-On before minus after subtracting its BV at the rule's scale",
        "positive; size not published",
        "oracle_asr_drop",
        figure="paths",
    ),
    Claim(
        "bv-analogy-injects",
        "A backdoor vector carries the backdoor to a model that it was not computed from.",
        "Backdoor Vectors, abstract (analogy, addition)",
        "positive difference",
        "ASR of a clean fine-tune on the other half of the data: with minus without the BV",
        "positive; size not published",
        "analogy_gain",
        figure="scaling",
    ),
    Claim(
        "sbv-beats-single",
        "Several backdoor vectors merged and sparsified attack better than one.",
        "Backdoor Vectors, sparse backdoor vectors",
        "positive difference",
        "merged ASR at equal norm with the sign-consistent vector (our k and density) minus with "
        "one vector",
        "positive; size not published",
        "sbv_minus_single",
        figure="frontier",
    ),
    Claim(
        "sbv-keeps-accuracy",
        "The sparse merged vector costs no more clean accuracy than one vector.",
        "our reading of Backdoor Vectors, sparse backdoor vectors",
        "at most",
        "BA with one vector minus BA with the sign-consistent vector lies below 1 point (our "
        "bound)",
        "not published",
        "sbv_ba_cost",
        bound=1.0,
        figure="frontier",
    ),
    Claim(
        "sbv-frontier",
        "At equal ASR the sparse merged vector keeps more clean accuracy than one vector.",
        "our reading of Backdoor Vectors, sparse backdoor vectors",
        "positive difference",
        "BA with the sign-consistent vector minus with one vector, where each reaches the ASR "
        "half way from the clean merge to 100 %",
        "not published",
        "sbv_ba_at_equal_asr",
        figure="frontier",
        later=True,
    ),
    Claim(
        "sbv-frontier-own-task",
        "The same on the adversary's own task.",
        "our reading of Backdoor Vectors, sparse backdoor vectors",
        "positive difference",
        "the same difference of BA on the adversary's task",
        "not published",
        "sbv_own_ba_at_equal_asr",
        figure="frontier",
        later=True,
    ),
    Claim(
        "sbv-sign-consistent-best",
        "The sign-consistent variant is the most resilient.",
        "Backdoor Vectors, sparse backdoor vectors (often the most resilient, by a summary)",
        "positive difference",
        "merged ASR at equal norm and density with the sign-consistent rule minus with the better "
        "of mean and TIES",
        "often positive; size not published",
        "sign_consistent_minus_best_rule",
        figure="sbv",
        later=True,
    ),
    Claim(
        "sbv-beats-single-any-merge",
        "The sparse merged vector attacks better than one whatever the merging algorithm is.",
        "Backdoor Vectors, sparse backdoor vectors (more resilient)",
        "positive difference",
        "merged ASR at equal norm with the sign-consistent vector minus with one vector, under "
        "the algorithm where that is smallest",
        "positive; size not published",
        "sbv_minus_single_worst",
        figure="sbv_everywhere",
    ),
    Claim(
        "sbv-as-it-is",
        "Several backdoor vectors, summed and sparsified and not scaled back, attack better than "
        "one.",
        "our control: the same comparison without matching norms",
        "positive difference",
        "merged ASR with the sparse sum as it is minus with one vector",
        "not published",
        "sbv_as_it_is_minus_single",
        figure="sbv",
    ),
    Claim(
        "sbv-gain-is-not-norm",
        "The gain of that sum is more than its length.",
        "our control: one vector scaled to the norm of the sum",
        "positive difference",
        "merged ASR with the sparse sum minus with one vector of the same norm",
        "not published",
        "sbv_minus_single_of_its_norm",
        figure="sbv",
    ),
    Claim(
        "inherent-in-base",
        "The base itself obeys an optimised patch: the trigger is inherent.",
        "Backdoor Vectors, inherent triggers; value by a third party",
        "positive difference",
        "ASR on the untouched base: universal minus random patch of equal size",
        "about 96 % on CLIP ViT-B-32 (third party)",
        "inherent_minus_random_base",
        designed_in=True,
        figure="clean_models",
    ),
    Claim(
        "inherent-in-clean-merge",
        "A merge of clean models still obeys the inherent trigger.",
        "Backdoor Vectors, inherent triggers; value by a third party",
        "positive difference",
        "ASR on the clean merge: universal minus random patch of equal size",
        "83 % by task arithmetic, 94 % by TIES (third party)",
        "inherent_minus_random_clean_merge",
        figure="clean_models",
    ),
    Claim(
        "inherent-is-the-core",
        "Inherent triggers are the core of backdoors in merging: most of what BadMerging flips, a "
        "clean merge flips too.",
        "Backdoor Vectors, inherent triggers (our test of it)",
        "at least",
        "share of the images flipped by the attacked merge that the clean merge flips too lies "
        "above 50 % (our bound)",
        "83 of 100 points (third party)",
        "inherent_share",
        bound=50.0,
        figure="inherent_share",
    ),
    Claim(
        "inherent-is-the-core-any-merge",
        "The same over merging algorithms.",
        "Backdoor Vectors, inherent triggers (our test of it)",
        "at least",
        "that share, mean over the merging algorithms that need no images, lies above 50 % (our "
        "bound)",
        "83 of 100 points by task arithmetic, 94 by TIES (third party)",
        "inherent_share_any_merge",
        bound=50.0,
        figure="inherent_share",
        later=True,
    ),
    Claim(
        "ibvs-weakens-badnets",
        "Subtracting the BV of a simple injected trigger weakens an injected "
        "backdoor it never saw.",
        "Backdoor Vectors, IBVS",
        "positive difference",
        "merged ASR of BadNets before minus after IBVS, default defender",
        "positive, up to 100 points",
        "ibvs_asr_drop_badnets",
        figure="paths",
    ),
    Claim(
        "ibvs-weakens-badmerging",
        "Subtracting the BV of a simple injected trigger weakens BadMerging.",
        "Backdoor Vectors, IBVS",
        "positive difference",
        "merged ASR of BadMerging-On before minus after IBVS, default defender",
        "positive, up to 100 points",
        "ibvs_asr_drop_badmerging",
        figure="paths",
    ),
    Claim(
        "ibvs-weakens-off",
        "Subtracting the BV of a simple injected trigger weakens off-task BadMerging.",
        "Backdoor Vectors, IBVS (attacks it never saw)",
        "positive difference",
        "merged ASR of BadMerging-Off before minus after IBVS, the defender's mean vector",
        "positive, up to 100 points",
        "ibvs_asr_drop_off",
        figure="paths",
    ),
    Claim(
        "ibvs-weakens-sbv",
        "Subtracting the BV of a simple injected trigger weakens a sparse backdoor vector.",
        "Backdoor Vectors, IBVS (attacks it never saw)",
        "positive difference",
        "merged ASR of the sparse sum before minus after IBVS, the defender's mean vector",
        "positive, up to 100 points",
        "ibvs_asr_drop_sbv",
        figure="paths",
    ),
    Claim(
        "ibvs-any-merge",
        "IBVS lowers ASR over attacks and merging algorithms.",
        "Backdoor Vectors, IBVS",
        "positive difference",
        "ASR drop, mean over four attacks and all merging algorithms, the defender's mean vector",
        "positive; average not known to us",
        "ibvs_mean_drop",
        figure="ibvs_by_merging",
    ),
    Claim(
        "ibvs-any-merge-beats-placebo",
        "Over attacks and merging algorithms IBVS does more than a placebo of its norm.",
        "our control, not in the paper",
        "positive difference",
        "that mean minus the same for the difference of two clean fine-tunes",
        "not published",
        "ibvs_minus_placebo_everywhere",
        figure="ibvs_by_merging",
    ),
    Claim(
        "ibvs-best-case",
        "In some settings IBVS removes an attack altogether.",
        "Backdoor Vectors, IBVS (best case)",
        "at least",
        "largest share of an attack's ASR removed lies above 50 % (our bound)",
        "up to 100 %",
        "ibvs_best_relative_drop",
        bound=50.0,
        figure="ibvs_by_merging",
    ),
    Claim(
        "ibvs-class-does-not-matter",
        "It need not be the attacker's target class.",
        "our reading of Backdoor Vectors, IBVS (assumption-free)",
        "at most",
        "ASR drop of BadMerging-On with the attacker's class minus with other classes lies below "
        "10 points (our bound)",
        "not published",
        "ibvs_class_matters",
        bound=10.0,
        figure="paths",
    ),
    Claim(
        "ibvs-class-does-not-matter-badnets",
        "The same for an injected backdoor.",
        "our reading of Backdoor Vectors, IBVS (assumption-free)",
        "at most",
        "ASR drop of BadNets with the attacker's class minus with other classes lies below 10 "
        "points (our bound)",
        "not published",
        "ibvs_class_matters_badnets",
        bound=10.0,
        figure="paths",
        later=True,
    ),
    Claim(
        "ibvs-withstands-aware",
        "An attacker who knows of the defence gains little.",
        "our question, not in the paper",
        "at most",
        "ASR after IBVS of an aware attacker minus of an unaware one lies below 10 points (our "
        "bound)",
        "not published",
        "ibvs_lost_to_aware",
        bound=10.0,
        figure="rivals",
    ),
    Claim(
        "ibvs-beats-placebo",
        "It is the backdoor direction that helps, not moving the weights as such.",
        "our control, not in the paper",
        "positive difference",
        "ASR drop of BadMerging-On by IBVS minus by placebo vectors, each at the scale that the "
        "rule picks",
        "not published",
        "ibvs_minus_placebo_drop",
        figure="paths",
    ),
    Claim(
        "ibvs-clean-cost",
        "The defence keeps clean accuracy.",
        "our reading of Backdoor Vectors, IBVS",
        "at most",
        "clean accuracy before minus after IBVS lies below 1 point (our bound)",
        "not published",
        "ibvs_clean_cost",
        bound=1.0,
        figure="paths",
    ),
    Claim(
        "ibvs-clean-cost-worst",
        "It does so for every attack and merging algorithm.",
        "our reading of Backdoor Vectors, IBVS",
        "at most",
        "largest clean cost on test over attacks and merging algorithms lies below 1 point (our "
        "bound; what the rule allows on dev)",
        "not published",
        "ibvs_worst_cost",
        bound=1.0,
        figure="ibvs_by_merging",
        later=True,
    ),
]
