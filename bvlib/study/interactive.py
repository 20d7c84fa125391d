"""One attack under sliders: the scaled backdoor, the merge and the defence at once, fast enough to
follow the hand.

:class:`Bench` is the core: prepared once, it answers for any setting. Task arithmetic is linear in
its vectors,

    θ = θ_pre + λ·(Σ_t τ_t + λ_BV·BV) − λ_IBVS·BV_injected,

so the sum over the tasks is made once, and a setting costs a few additions and the forward passes
of a small sample.
The sliders that ask it are in :mod:`bvlib.study.sliders`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import pandas as pd
import torch
from torch import Tensor

from bvlib.attacks.triggers import Dynamic, Trigger
from bvlib.core import metrics
from bvlib.core.errors import BvError
from bvlib.core.rng import generator
from bvlib.core.vectors import StateDict, TaskVector
from bvlib.merging import merge
from bvlib.study.experiments import Vectors
from bvlib.worlds.tasks import Task

State = dict[str, Any]
"""A setting and what came out of it, see :meth:`Bench.at`."""

BARS = {  # what a state's bars are: key -> label, role
    "accuracy": ("accuracy", "accuracy"),
    "asr": ("ASR", "attack"),
    "asr_clean": ("ASR without BV", "clean"),
}


# The core


@dataclass(frozen=True, eq=False)
class Bench:
    """Everything that a setting of the sliders needs; make it with :meth:`of`.

    ``honest`` is Σ_t τ_t of the clean models, the adversary's own clean model among them;
    ``images`` (N, H, W, 3) uint8 and ``labels`` (N,) are the sample that rates are taken on,
    ``shown`` (M, H, W, 3) uint8 the images to look at, ``said`` the sample in words. ``kept``
    remembers rates that were computed, by setting.
    """

    encoder: Any
    base: StateDict
    honest: TaskVector
    bv: TaskVector
    injected: TaskVector
    head: Tensor
    classnames: tuple[str, ...]
    images: Tensor
    labels: Tensor
    shown: Tensor
    trigger: Trigger | Dynamic
    target: int
    said: str
    kept: dict = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        encoder,
        base: StateDict,
        vectors: Vectors,
        attack,
        injected: TaskVector,
        task: Task,
        *,
        shown: Tensor | None = None,
        count: int = 300,
        seed: int = 0,
    ) -> Self:
        """A bench for ``attack`` (it has ``vector``, ``trigger`` and ``target``) on ``task``,
        merged with the clean ``vectors``.

        ``vectors`` are τ of every merged task, ``injected`` is the defender's own backdoor vector.
        The sample is ``count`` test images drawn by ``seed``, or all when there are fewer; without
        ``shown`` its first ten are shown.
        """
        chosen = torch.randperm(len(task.test), generator=generator(seed, "sample"))[:count]
        images, labels = task.test.images[chosen], task.test.labels[chosen]
        others, target = int((labels != attack.target).sum()), task.classnames[attack.target]
        said = f"{len(labels)} of the {len(task.test)} test images of {task.name} (drawn with seed "
        said += f"{seed}); ASR on the {others} of them that are not {target!r}"
        honest = merge("task_arithmetic", list(vectors.values()), coefficient=1.0)
        asked = encoder.head(task.classnames, task.prompts), task.classnames, images, labels
        seen = (images[:10] if shown is None else shown, attack.trigger, attack.target, said)
        return cls(encoder, base, honest, attack.vector, injected, *asked, *seen)

    def theta(self, lambda_bv: float, coefficient: float, lambda_ibvs: float) -> StateDict:
        """θ of a setting; λ_BV = 0 and λ_IBVS = 0 is the clean merge, λ_BV = 1 and λ_IBVS = 0 the
        attacked one."""
        merged = coefficient * (self.honest + lambda_bv * self.bv)
        return self.base + (merged - lambda_ibvs * self.injected)

    def at(
        self,
        lambda_bv: float = 1.0,
        coefficient: float = 0.3,
        lambda_ibvs: float = 0.0,
        place: str = "bottom-right",
        image: int = 0,
    ) -> State:
        """The setting, with what comes out of it.

        ``accuracy`` on the clean sample, ``asr``, and ``asr_clean`` of the same merge without the
        BV (the zero line: same trigger, place and defence), each a :class:`core.metrics.Rate`; for
        the shown image of that number ``prediction`` and its ``probability`` (%), and ``before``
        and ``probability_before`` without the trigger.

        Raises BvError for an unknown place or image.
        """
        if not 0 <= image < len(self.shown):
            raise BvError(f"no image {image!r} to show: there are 0 to {len(self.shown) - 1}")
        setting = (float(lambda_bv), float(coefficient), float(lambda_ibvs))
        theta = self.theta(lambda_bv, coefficient, lambda_ibvs)
        state = dict(zip(("lambda_bv", "coefficient", "lambda_ibvs"), setting))
        state |= {"place": place, "image": image, "accuracy": self._accuracy(setting, theta)}
        state["asr"] = self._asr(setting, place, theta)
        state["asr_clean"] = self._asr((0.0, *setting[1:]), place)
        triggered = self._read(theta, self.pixels(image, place))
        plain = self._read(theta, self.pixels(image))
        state |= zip(("prediction", "probability"), triggered)
        return state | dict(zip(("before", "probability_before"), plain))

    def pixels(self, image: int, place: str | None = None) -> Tensor:
        """A shown image (1, 3, H, W) in [0, 1], with the trigger when a place is given."""
        pixels = self.encoder.pixels(self.shown[image : image + 1])
        return pixels if place is None else self._placed(place).paste(pixels)

    def _placed(self, place: str) -> Trigger | Dynamic:
        # a dynamic trigger has no place of its own
        return self.trigger.at(place) if self.trigger.fixed else self.trigger

    @torch.no_grad()
    def _read(self, theta: StateDict, pixels: Tensor) -> tuple[str, float]:
        shares = self.encoder.logits(self.encoder.features(theta, pixels), self.head).softmax(-1)[0]
        return self.classnames[int(shares.argmax())], 100 * float(shares.max())

    def _accuracy(self, setting: tuple, theta: StateDict) -> metrics.Rate:
        if setting not in self.kept:
            found = self.encoder.predict(theta, self.images, self.head, batch=150)
            self.kept[setting] = metrics.accuracy(found, self.labels)
        return self.kept[setting]

    def _asr(self, setting: tuple, place: str, theta: StateDict | None = None) -> metrics.Rate:
        if (key := (*setting, place)) not in self.kept:
            others = self.labels != self.target  # images of the target class need no pass
            theta, seen = theta or self.theta(*setting), (self.images[others], self.head)
            found = self.encoder.predict(theta, *seen, self._placed(place), batch=150)
            asr = metrics.attack_success_rate
            self.kept[key] = asr(found, self.labels[others], self.target)
        return self.kept[key]


# Tables


def table(states: Sequence[State]) -> pd.DataFrame:
    """Settings and rates as plain columns; the intervals (over images) of the attacked ASR as low
    and high."""
    table = pd.DataFrame(states)
    ends = {end: [getattr(rate, end) for rate in table["asr"]] for end in ("low", "high")}
    plain = {key: [rate.percent for rate in table[key]] for key in BARS}
    return table.assign(**plain, **ends)


def states(*tables: pd.DataFrame) -> pd.DataFrame:
    """The settings of several tables, each once, without what no reader needs."""
    columns = ["lambda_bv", "lambda_ibvs", "place", "accuracy", "asr", "low", "high", "asr_clean"]
    every = pd.concat(tables)[[*columns, "prediction", "probability"]]
    return every.drop_duplicates(["lambda_bv", "lambda_ibvs", "place"])


def elsewhere(moved: pd.DataFrame, place: str = "bottom-right") -> float:
    """Mean ASR (%) at λ_BV = 1 over the places that are not the trigger's own."""
    return moved[(moved["lambda_bv"] == 1) & (moved["place"] != place)]["asr"].mean()


def defenders_class(classes: Sequence[int], target: int) -> int:
    """The first class that is not the attack's target: what the defender's own backdoor aims at.

    Raises BvError when there is none.
    """
    others = [c for c in classes if c != target]
    if not others:
        raise BvError(f"other_classes holds no class but the target {target}: name one more")
    return others[0]
