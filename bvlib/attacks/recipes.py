"""Attacks as recipes: which trigger, which objective. Adding one is one line in the registry.

An attack fine-tunes the adversary's task with a backdoor; its backdoor vector is what that adds to
a clean fine-tune. The two parts of BadMerging, the universal trigger and feature interpolation,
are separate fields here, so the factorial comparison of the two is four lines of the registry, and
every ablated variant one more. An off-task attack aims at a class of a task that the adversary
does not train: all it knows of that task is in its :class:`Goal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch

from bvlib.attacks import objectives, triggers
from bvlib.attacks.adversarial import pushed_away
from bvlib.core import training
from bvlib.core.errors import unknown
from bvlib.core.vectors import BackdoorVector, StateDict


@dataclass(frozen=True)
class Attack:
    """A recipe: ``trigger`` names an entry of :data:`TRIGGERS`, ``objective(trigger, target,
    alpha=…)`` the loss.

    ``off_task``: the target class belongs to another task. ``shadow``: that task's unknown classes
    are replaced by shadow classes; without, by the adversary's own classes.
    """

    name: str
    trigger: str
    objective: Callable[..., training.Objective]
    what: str
    off_task: bool = False
    shadow: bool = True


_ON = (
    Attack(
        "badnets",
        "white",
        objectives.poisoned,
        "white square, plain poisoned loss (Gu et al. 2017)",
    ),
    Attack(
        "badmerging-on",
        "universal",
        objectives.feature_interpolation,
        "universal trigger and feature interpolation (BadMerging, on-task)",
    ),
    Attack(
        "universal-only",
        "universal",
        objectives.poisoned,
        "BadMerging-On without feature interpolation",
    ),
    Attack(
        "interpolation-only",
        "white",
        objectives.feature_interpolation,
        "BadMerging-On without the universal trigger",
    ),
    Attack(
        "blended",
        "blended",
        objectives.poisoned,
        "faint noise over the whole image (Chen et al. 2017)",
    ),
    Attack(
        "trojannn",
        "trojan",
        objectives.poisoned,
        "patch that drives chosen features of the base (Liu et al. 2018)",
    ),
    Attack(
        "dynamic",
        "dynamic",
        objectives.poisoned,
        "random patch at a random place each time (Salem et al. 2022)",
    ),
    Attack(
        "label-consistent",
        "checkerboard",
        objectives.label_consistent,
        "hard images of the target class with a checkerboard, no wrong label (Turner et al. 2019)",
    ),
)
_OFF = (
    Attack(
        "badmerging-off",
        "off-universal",
        objectives.feature_interpolation,
        "BadMerging off-task: a few references, shadow classes, augmentation, feature "
        "interpolation",
        True,
    ),
    Attack(
        "off-no-trigger",
        "white",
        objectives.feature_interpolation,
        "BadMerging-Off with a white square",
        True,
    ),
    Attack(
        "off-no-interpolation",
        "off-universal",
        objectives.poisoned,
        "BadMerging-Off with the plain loss",
        True,
    ),
    Attack(
        "off-no-augmentation",
        "off-plain",
        objectives.feature_interpolation,
        "BadMerging-Off, trigger optimised on the references as they are",
        True,
    ),
    Attack(
        "off-no-shadow",
        "off-universal",
        objectives.feature_interpolation,
        "BadMerging-Off with the adversary's own class names in place of shadow classes",
        True,
        shadow=False,
    ),
)
ATTACKS: dict[str, Attack] = {a.name: a for a in _ON + _OFF}
# the parts of BadMerging-On crossed: what notebook 01 compares
FACTORIAL = ("badnets", "badmerging-on", "universal-only", "interpolation-only")


@dataclass(frozen=True)
class Goal:
    """What an attack aims at and what its adversary knows of it.

    ``task`` is the task whose images are to be flipped to class ``target``; ``head`` (K, D) and
    ``index`` are that class as the adversary sees it (on-task: the task's own head), ``images``
    (N, H, W, 3) uint8 with ``labels`` (N,) what it optimises a trigger on. On-task these are its
    training images; off-task a few references of the target class.
    """

    task: str
    target: int
    head: torch.Tensor
    index: int
    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Backdoor:
    """An attack carried out by the adversary of ``task``: its trigger, the backdoored weights and
    the backdoor vector.

    ``goal_task`` is the task whose images it flips to class ``target``: ``task`` itself, or
    another one off-task. With several backdoors in one model, ``pairs`` holds each trigger with
    its class; the first is ``trigger``, ``target``.
    """

    attack: str
    task: str
    target: int
    trigger: triggers.Trigger | triggers.Dynamic
    theta: StateDict
    vector: BackdoorVector
    goal_task: str = ""
    pairs: tuple[tuple[triggers.Trigger, int], ...] = ()


def attack(name: str) -> Attack:
    """The recipe of a name. Raises BvError with the nearest name when there is none."""
    if name not in ATTACKS:
        raise unknown("attack", name, ATTACKS)
    return ATTACKS[name]


def _blended(encoder, theta, goal, *, size, place, seed):
    return triggers.blended(*encoder.pixels(goal.images[:1]).shape[-2:], seed)


def _off(encoder, theta, goal, *, size, place, seed, augmented: int = 100, **how):
    """Off-task: a patch on references that were first pushed away from the target class."""
    pixels = pushed_away(encoder, theta, goal.head, goal.images, count=augmented, seed=seed)
    return triggers.toward_class(
        encoder, theta, goal.head, pixels, goal.index, size=size, place=place, seed=seed, **how
    )


# kind -> trigger, from what an attacker has: the base, its goal
TRIGGERS: dict[str, Callable[..., triggers.Trigger]] = {
    "white": lambda encoder, theta, goal, *, size, place, seed: triggers.solid(size, place),
    "checkerboard": lambda encoder, theta, goal, *, size, place, seed: triggers.checkerboard(
        size, place
    ),
    "random": lambda encoder, theta, goal, *, size, place, seed: triggers.random_patch(
        size, seed, place
    ),
    "dynamic": lambda encoder, theta, goal, *, size, place, seed: triggers.Dynamic(size, seed),
    "blended": _blended,
}
# the same, for those that are optimised: they take ``steps, batch, lr`` as well
OPTIMISED: dict[str, Callable[..., triggers.Trigger]] = {
    "universal": lambda encoder, theta, goal, **how: triggers.universal(
        encoder, theta, goal.head, goal.images, goal.labels, goal.index, **how
    ),
    "trojan": lambda encoder, theta, goal, **how: triggers.trojan(
        encoder, theta, goal.head, goal.images, goal.index, **how
    ),
    "off-universal": _off,
    "off-plain": lambda encoder, theta, goal, *, augmented=0, **how: triggers.toward_class(
        encoder, theta, goal.head, goal.images, goal.index, **how
    ),
}


def make_trigger(
    kind: str, encoder, theta, goal: Goal, *, size: int, place, seed: int, **how
) -> triggers.Trigger:
    """The trigger of a kind; only those of :data:`OPTIMISED` look at the model (theta) and the
    goal, and take ``how``."""
    if kind in OPTIMISED:
        return OPTIMISED[kind](encoder, theta, goal, size=size, place=place, seed=seed, **how)
    if kind not in TRIGGERS:
        raise unknown("trigger kind", kind, [*TRIGGERS, *OPTIMISED])
    return TRIGGERS[kind](encoder, theta, goal, size=size, place=place, seed=seed)
