"""Attacks as recipes: which trigger, which objective. Adding one is one line in the registry.

An attack fine-tunes the adversary's task with a backdoor; its backdoor vector is what that adds to a clean fine-tune.
The two parts of BadMerging-On, the universal trigger and feature interpolation, are separate fields here, so the
factorial comparison of the two is four lines of the registry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from . import finetune, merging, triggers
from .errors import unknown
from .vectors import BackdoorVector, StateDict


@dataclass(frozen=True)
class Attack:
    """A recipe: ``trigger`` names an entry of :data:`TRIGGERS`, ``objective(trigger, target, alpha=…)`` the loss."""

    name: str
    trigger: str
    objective: Callable[..., finetune.Objective]
    what: str


ATTACKS: dict[str, Attack] = {a.name: a for a in (
    Attack("badnets", "white", finetune.poisoned, "white square, plain poisoned loss (Gu et al. 2017)"),
    Attack("badmerging-on", "universal", finetune.feature_interpolation,
           "universal trigger and feature interpolation (BadMerging, on-task)"),
    Attack("universal-only", "universal", finetune.poisoned, "BadMerging-On without feature interpolation"),
    Attack("interpolation-only", "white", finetune.feature_interpolation, "BadMerging-On without the universal trigger"),
)}


@dataclass(frozen=True)
class Backdoor:
    """An attack carried out on a task: its trigger, the backdoored weights and the backdoor vector."""

    attack: str
    task: str
    target: int
    trigger: triggers.Trigger
    theta: StateDict
    vector: BackdoorVector


def attack(name: str) -> Attack:
    """The recipe of a name. Raises BvError with the nearest name when there is none."""
    if name not in ATTACKS:
        raise unknown("attack", name, ATTACKS)
    return ATTACKS[name]


# kind -> trigger, from what an attacker has: the base, its own task, the target class
TRIGGERS: dict[str, Callable[..., triggers.Trigger]] = {
    "white": lambda encoder, theta, head, data, target, *, size, place, seed, **_: triggers.solid(size, place),
    "checkerboard": lambda encoder, theta, head, data, target, *, size, place, seed, **_: triggers.checkerboard(size, place),
    "random": lambda encoder, theta, head, data, target, *, size, place, seed, **_: triggers.random_patch(size, seed, place),
    "universal": lambda encoder, theta, head, data, target, *, size, place, seed, **how: triggers.universal(
        encoder, theta, head, data.images, data.labels, target, size=size, place=place, seed=seed, **how),
}


def make_trigger(kind: str, encoder, theta, head, data, target: int, *, size: int, place, seed: int, **how) -> triggers.Trigger:
    """The trigger of a kind; only "universal" looks at the model (theta), the data (a Split) and the target class."""
    if kind not in TRIGGERS:
        raise unknown("trigger kind", kind, TRIGGERS)
    return TRIGGERS[kind](encoder, theta, head, data, target, size=size, place=place, seed=seed, **how)


def sparse_backdoor_vector(bvs: list[BackdoorVector], rule: str = "sign_consistent", density: float = 0.2,
                           **parameters) -> BackdoorVector:
    """SBV: several backdoor vectors merged by a rule of ``merging.BV_MERGING`` and sparsified to a density.

    The paper names the idea and the variant SBV_SC (sign-consistent); number of vectors, rule and density are our
    choices and parameters.
    """
    return merging.merge_backdoors(rule, bvs, density=density, **parameters)
