"""The defences that tables compare, in their order: each a few lines over its topic's module."""

from collections.abc import Mapping
from typing import Any

import torch

from bvlib.attacks.sbv import merge_backdoors
from bvlib.core.encoder import Model
from bvlib.core.vectors import TaskVector
from bvlib.defences import ibvs, occlusion, pruning, unlearning
from bvlib.defences.registry import Situation, defence

PAPER = "Backdoor Vectors"


def _minus(situation: Situation, vector: TaskVector) -> Model:
    return situation.choose(lambda s: ibvs.ibvs(situation.merged, vector, s))[1]


def mean_vector(situation: Situation) -> TaskVector:
    """The mean of the backdoor vectors that the defender injected itself."""
    return merge_backdoors("mean", situation.given("injected"))


@defence("ibvs", needs="the task", label="IBVS, mean vector", reference=PAPER)
def injected_mean(situation: Situation) -> Model:
    """Injection BV Subtraction of the mean of the defender's own vectors."""
    return _minus(situation, mean_vector(situation))


@defence("ibvs-class", needs="task and class", label="IBVS, attacker's class", reference=PAPER)
def injected_class(situation: Situation) -> Model:
    """Injection BV Subtraction by a defender who guesses the attacker's class."""
    return _minus(situation, situation.given("same_class"))


@defence("placebo", needs="the task", label="placebo (two clean seeds)", role="placebo")
def placebo(situation: Situation) -> Model:
    """The difference of two clean fine-tunes in place of IBVS's mean vector, at equal norm."""
    drift = situation.given("drift")
    return _minus(situation, drift * (mean_vector(situation).norm() / drift.norm()))


@defence("lfpm", label="LFPM (our reading)", reference="arXiv 2606.12498")
def anti_backdoor(situation: Situation, *, steps: int = 30, lr: float = 1e-4) -> Model:
    """Unlearning in feature space against the defender's own trigger (our reading of LFPM)."""
    at, patch = (situation.encoder, situation.merged.theta), situation.given("patch")
    how: Any = {"steps": steps, "lr": lr, "seed": situation.seed}
    vector = unlearning.anti_backdoor_vector(*at, situation.seen, patch, **how)
    return _minus(situation, -vector)


@defence("dam", label="DAM (our reading)", reference="arXiv 2410.13910")
def defence_aware(situation: Situation, *, steps: int = 30, lr: float = 0.05) -> Model:
    """A merge of its own that learns a mask shared by all tasks (our reading of DAM)."""
    s = situation
    how: Any = {"steps": steps, "lr": lr, "seed": s.seed}
    return unlearning.dam(s.vectors, encoder=s.encoder, base=s.base, seen=s.seen, **how)


_LABELS: Any = {"needs": "labels", "settings": "fine_pruning"}


@defence("fine-tuning", **_LABELS)
def fine_tuning(situation: Situation, *, steps: int = 60, lr: float = 1e-4) -> Model:
    """Fine-tuning on clean labelled dev images of all tasks."""
    return pruning.tune(situation.merged, situation.parts, steps=steps, lr=lr, seed=situation.seed)


@defence("fine-pruning", **_LABELS, label="Fine-Pruning", reference="Liu et al. 2018")
def fine_pruning(
    situation: Situation, *, steps: int = 60, blocks: int = 2, lr: float = 1e-4
) -> Model:
    """Dormant units removed, as many as clean dev accuracy allows, then fine-tuning."""
    merged = situation.merged
    images = torch.cat([images for images, _, _ in situation.parts.values()])
    active = pruning.activity(situation.encoder, merged.theta, images, blocks)
    shares = [x / 10 for x in range(10)]
    share, _ = situation.choose(lambda s: pruning.prune(merged, active, s), shares)
    how: Any = {"pruned": active, "share": share, "steps": steps, "lr": lr, "seed": situation.seed}
    return pruning.tune(merged, situation.parts, **how)


@defence("occlusion", passes="many", reference="PatchCleanser, Xiang et al. 2022")
def occluded(situation: Situation) -> Model:
    """One token covered at a time and agreement asked for: the prediction changes, not the
    weights."""
    encoder, theta = situation.merged.encoder, situation.merged.theta
    cover: Any = occlusion.Occluded  # it stands where an encoder does
    if isinstance(encoder, Mapping):
        return Model({name: cover(each) for name, each in encoder.items()}, theta)
    return Model(cover(encoder), theta)


_TBAR: Any = {"label": "TBAR, known trigger", "role": "oracle", "reference": "2510.14845"}


@defence("tbar", needs="trigger, class", **_TBAR)
def known_trigger(situation: Situation, *, steps: int = 20, lr: float = 1e-4) -> Model:
    """Negation of what a few steps on images with the attacker's trigger add."""
    attack, (images, _, head) = situation.given("attack"), situation.given("goal")
    at, aim = (situation.encoder, situation.merged.theta), (attack.trigger, attack.target)
    how: Any = {"steps": steps, "lr": lr, "seed": situation.seed}
    return _minus(situation, unlearning.trigger_vector(*at, head, images, *aim, **how))


@defence("oracle", needs="the attack", label="oracle: the attack's own BV", role="oracle")
def own_vector(situation: Situation) -> Model:
    """The attack's own backdoor vector subtracted, which no defender has."""
    return _minus(situation, situation.given("attack").vector)
