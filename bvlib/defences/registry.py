"""The registry of defences: what a merger does to a model that may hold a backdoor.

A new defence is one function of a :class:`Situation` that gives a Model:

    @defence("shrink", needs="nothing")
    def shrink(situation, *, most=0.5):
        own = TaskVector.between(situation.merged.theta, situation.base)
        return situation.choose(lambda s: situation.merged - most * s * own)[1]

(θ − s·most·(θ − θ_pre), with as large an s as clean dev accuracy allows.) It is then a row of the
table of notebook ``09``, under its ``label`` where it has one.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bvlib.attacks.recipes import Backdoor
from bvlib.attacks.triggers import Trigger
from bvlib.core.encoder import Encoder, Model, StateDict
from bvlib.core.errors import BvError
from bvlib.core.registry import Method, Registry
from bvlib.core.vectors import TaskVector
from bvlib.defences.ibvs import defended
from bvlib.merging.registry import Seen

Part = tuple[Tensor, Tensor, Tensor]
"""Clean images (N, H, W, 3) uint8 of one task, their labels (N,), and the task's head (K, D)."""


@dataclass(frozen=True, eq=False)
class Situation:
    """What a defence may be given; how much of it a defence must know is what its ``needs`` says.

    Every merger has the ``merged`` model, the ``encoder`` and weights of the ``base``, the task
    ``vectors`` as they were merged, ``parts`` of every task (clean dev images, labels, head), and
    ``accuracy(model)``, clean dev accuracy in percent. ``scales``, ``budget`` (points) and
    ``seed`` are those of :meth:`choose` and of what is random.

    For a defence by subtraction: backdoor vectors that the defender ``injected`` itself, toward
    classes that are not the attacker's, one toward the attacker's own class (``same_class``),
    ``drift``, the difference of two clean fine-tunes, and the ``patch`` that it used. For an
    oracle: the ``attack`` itself, and the ``goal``, the attacked task's part.
    """

    merged: Model
    encoder: Encoder
    base: StateDict
    vectors: Mapping[str, TaskVector]
    parts: Mapping[str, Part]
    accuracy: Callable[[Model], float]
    scales: Sequence[float] = (0.0, 0.2, 0.4, 0.7, 1.0, 1.5)
    budget: float = 1.0
    seed: int = 0
    injected: Sequence[TaskVector] = ()
    same_class: TaskVector | None = None
    drift: TaskVector | None = None
    patch: Trigger | None = None
    attack: Backdoor | None = None
    goal: Part | None = None

    @property
    def seen(self) -> dict[str, Seen]:
        """The dev images of every task without their labels."""
        return {name: Seen(images, head) for name, (images, _, head) in self.parts.items()}

    def given(self, what: str) -> Any:
        """A part that not every situation holds. BvError where this one does not."""
        value = getattr(self, what)
        if value is None or value == ():
            raise BvError(f"this defence needs {what}: give it to the Situation")
        return value

    def choose(
        self, apply: Callable[[float], Model], scales: Sequence[float] | None = None
    ) -> tuple[float, Model]:
        """The strength that clean dev accuracy picks for ``apply(scale)``, and the defended
        model."""
        return defended(apply, self.accuracy, scales or self.scales, self.budget)


class Defence(Method):
    """A registered defence."""

    def settings(self, profile: Mapping[str, Any]) -> dict[str, Any]:
        """Its parameters in a profile's settings {name: parameters}."""
        return self.accepts(profile.get(self.more.get("settings", self.name), {}))


def _checked(function: Callable) -> Callable:
    @functools.wraps(function)
    def checked(situation: Situation, **parameters: Any) -> Model:
        found = function(situation, **parameters)
        if not isinstance(found, Model):
            what = f"defence {function.__name__!r} gave a {type(found).__name__}, not a Model"
            raise BvError(f"{what}: return Model(encoder, theta)")
        return found

    return checked


defence: Registry[Defence] = Registry("defence", "defence", check=_checked, method=Defence)
