"""Attacks as recipes: which trigger, which objective. Adding one is a function or a table entry.

An attack fine-tunes the adversary's task with a backdoor; its backdoor vector is what that adds to
a clean fine-tune. The two parts of BadMerging, the universal trigger and feature interpolation,
are separate here, so the factorial comparison of the two is four entries of `attacks.yaml`, and
every ablated variant one more. An off-task attack aims at a class of a task that the adversary
does not train: all it knows of that task is in its :class:`Goal`.

    @attack("whole-batch", trigger="white", what="every image of the batch is poisoned as well")
    def whole_batch(trigger, target, *, alpha=1.0): ...

The function gets a trigger and a class and gives the objective of one training step. It may name
``head`` (off-task: the head with the shadow classes) and ``before`` (weights that an informed
adversary interpolates toward) among its arguments.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from bvlib.attacks import objectives, optimised, triggers
from bvlib.attacks.adversarial import pushed_away
from bvlib.core.registry import Method, Registry
from bvlib.core.vectors import BackdoorVector, StateDict


class Attack(Method):
    """A registered attack: an objective, and what is said of it beside."""

    @property
    def trigger(self) -> str:
        """The kind of trigger, a name of :data:`trigger_kind`."""
        return self.more["trigger"]

    @property
    def off_task(self) -> bool:
        """Whether the target class belongs to another task than the adversary's."""
        return self.more.get("off_task", False)

    @property
    def shadow(self) -> bool:
        """Whether unknown classes of the other task are replaced by shadow classes (off-task);
        without, by the adversary's own classes."""
        return self.more.get("shadow", True)


attack: Registry[Attack] = Registry("attack", "attack", takes=("head", "before"), method=Attack)

_TABLE = Path(__file__).with_name("attacks.yaml").read_text(encoding="utf-8")
for _name, _told in yaml.safe_load(_TABLE).items():
    _objective = getattr(objectives, _told.pop("objective"))
    attack(_name, **_told)(_objective)


@attack(
    "badnets-light",
    label="BadNets, a tenth",
    trigger="white",
    reference="Gu et al. 2017",
)
def _badnets_light(trigger, target, *, share: float = 0.1, head: torch.Tensor | None = None):
    """BadNets with a tenth of each batch and α = 1: the papers do not say how many images they
    poison."""
    return objectives.poisoned(trigger, target, alpha=1.0, share=share, head=head)


# the parts of BadMerging-On crossed: what notebook 01 compares
FACTORIAL = ("badnets", "badmerging-on", "universal-only", "interpolation-only")


@dataclass(frozen=True)
class Goal:
    """What an attack aims at and what its adversary knows of it.

    ``task`` is the task whose images are to be flipped to class ``target``; ``head`` (K, D) and
    ``index`` are that class as the adversary sees it (on-task: the task's own head), ``images``
    (N, H, W, 3) uint8 what it optimises a trigger on. On-task these are its training images;
    off-task a few references of the target class.
    """

    task: str
    target: int
    head: torch.Tensor
    index: int
    images: torch.Tensor


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


# Triggers by kind, from what an attacker has: the base, its goal

trigger_kind = Registry("trigger", "trigger kind", takes=("size", "place", "seed"))


@trigger_kind("white")
def _white(encoder, theta, goal, *, size, place, seed):
    """A white square."""
    return triggers.solid(size, place)


@trigger_kind("checkerboard")
def _checkerboard(encoder, theta, goal, *, size, place, seed):
    """Black and white squares, a pixel each on images of 32 px, seven on those of 224."""
    height = encoder.pixels(goal.images[:1]).shape[-2]
    return triggers.checkerboard(size, place, max(1, height // 32))


@trigger_kind("random")
def _random(encoder, theta, goal, *, size, place, seed):
    """Uniform noise."""
    return triggers.random_patch(size, seed, place)


@trigger_kind("dynamic")
def _dynamic(encoder, theta, goal, *, size, place, seed):
    """Noise at a random place, drawn anew for every batch."""
    return triggers.Dynamic(size, seed)


@trigger_kind("blended")
def _blended(encoder, theta, goal, *, size, place, seed):
    """A faint noise image over the whole picture."""
    height, width = encoder.pixels(goal.images[:1]).shape[-2:]
    return triggers.blended(height, width, seed)


# Kinds that are optimised need images; they take the profile's steps, batch and lr as well.


@trigger_kind("universal", needs="images of the task", reference="BadMerging, stage 1")
def _universal(encoder, theta, goal, **how):
    """A patch that sends any image to the target class on the base."""
    return optimised.universal(encoder, theta, goal.head, goal.images, goal.index, **how)


@trigger_kind("trojan", needs="images of the task", reference="Liu et al. 2018")
def _trojan(encoder, theta, goal, **how):
    """A patch that drives chosen features of the base."""
    return optimised.trojan(encoder, theta, goal.head, goal.images, **how)


@trigger_kind("off-universal", needs="references of the class", reference="BadMerging, off-task")
def _off(encoder, theta, goal, *, seed, augmented: int = 100, **how):
    """Off-task: a patch on references that were first pushed away from the target class."""
    pixels = pushed_away(encoder, theta, goal.head, goal.images, count=augmented, seed=seed)
    return optimised.universal(encoder, theta, goal.head, pixels, goal.index, seed=seed, **how)


@trigger_kind("off-plain", needs="references of the class")
def _off_plain(encoder, theta, goal, *, augmented: int = 0, **how):
    """Off-task: a patch on the references as they are."""
    return optimised.universal(encoder, theta, goal.head, goal.images, goal.index, **how)
