"""One attack under sliders: the scaled backdoor, the merge and the defence at once, fast enough to
follow the hand.

:class:`Bench` is the core: prepared once, it answers for any setting. Task arithmetic is linear in
its vectors,

    θ = θ_pre + λ·(Σ_t τ_t + λ_BV·BV) − λ_IBVS·BV_injected,

so the sum over the tasks is made once, and a setting costs a few additions and the forward passes
of a small sample.
The sliders that ask it are in :mod:`bvlib.study.sliders`.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from bvlib.attacks.triggers import Dynamic, Trigger
from bvlib.core.encoder import Model
from bvlib.core.errors import BvError
from bvlib.core.rng import generator
from bvlib.core.vectors import StateDict, TaskVector
from bvlib.merging import merge
from bvlib.study import experiments
from bvlib.study.experiments import Vectors
from bvlib.worlds.tasks import Split, Task

State = dict[str, Any]
"""A setting and what came out of it, see :meth:`Bench.at`."""

BARS = {  # what a state's bars are: key -> label, role
    "accuracy": ("accuracy", "accuracy"),
    "asr": ("ASR", "attack"),
    "asr_clean": ("ASR without BV", "clean"),
}


# The core


class Bench:
    """Everything that a setting of the sliders needs, prepared once.

    ``honest`` is Σ_t τ_t of the clean models, the adversary's own clean model among them;
    ``sample`` is the task with the test images that rates are taken on, ``said`` that sample in
    words; ``shown`` (M, H, W, 3) uint8 are the images to look at.
    """

    def __init__(
        self,
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
    ):
        """A bench for ``attack`` (it has ``vector``, ``trigger`` and ``target``) on ``task``,
        merged with the clean ``vectors``.

        ``vectors`` are τ of every merged task, ``injected`` is the defender's own backdoor vector.
        The sample is ``count`` test images drawn by ``seed``, or all when there are fewer; without
        ``shown`` its first ten are shown.
        """
        chosen = torch.randperm(len(task.test), generator=generator(seed, "sample"))[:count]
        images, labels = task.test.images[chosen], task.test.labels[chosen]
        self.sample = replace(task, test=Split(images, labels))
        self.shown = images[:10] if shown is None else shown
        self.encoder, self.base, self.injected = encoder, base, injected
        self.honest = merge("task_arithmetic", list(vectors.values()), coefficient=1.0)
        self.bv, self.trigger, self.target = attack.vector, attack.trigger, attack.target
        others, target = int((labels != attack.target).sum()), task.classnames[attack.target]
        self.said = f"{len(labels)} of the {len(task.test)} test images of {task.name} (drawn with "
        self.said += f"seed {seed}); ASR on the {others} of them that are not {target!r}"

    def model(self, lambda_bv: float, coefficient: float, lambda_ibvs: float) -> Model:
        """The model of a setting; λ_BV = 0 and λ_IBVS = 0 is the clean merge, λ_BV = 1 and
        λ_IBVS = 0 the attacked one."""
        merged = coefficient * (self.honest + lambda_bv * self.bv)
        return Model(self.encoder, self.base + (merged - lambda_ibvs * self.injected))

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
        setting = map(float, (lambda_bv, coefficient, lambda_ibvs))
        state = dict(zip(("lambda_bv", "coefficient", "lambda_ibvs"), setting))
        model, clean = (self.model(s, coefficient, lambda_ibvs) for s in (lambda_bv, 0.0))
        aim = self.sample, self._placed(place), self.target
        state |= {"place": place, "image": image}
        state["accuracy"] = experiments.accuracy(model, self.sample)
        state["asr"] = experiments.asr(model, *aim)
        state["asr_clean"] = experiments.asr(clean, *aim)
        triggered = self._read(model, self.pixels(image, place))
        state |= zip(("prediction", "probability"), triggered)
        plain = self._read(model, self.pixels(image))
        return state | dict(zip(("before", "probability_before"), plain))

    def pixels(self, image: int, place: str | None = None) -> Tensor:
        """A shown image (1, 3, H, W) in [0, 1], with the trigger when a place is given."""
        pixels = self.encoder.pixels(self.shown[image : image + 1])
        return pixels if place is None else self._placed(place).paste(pixels)

    def _placed(self, place: str) -> Trigger | Dynamic:
        # a dynamic trigger has no place of its own
        return self.trigger.at(place) if self.trigger.fixed else self.trigger

    @torch.no_grad()
    def _read(self, model: Model, pixels: Tensor) -> tuple[str, float]:
        names, features = self.sample.classnames, self.encoder.features(model.theta, pixels)
        head = self.encoder.head(names, self.sample.prompts)
        shares = self.encoder.logits(features, head).softmax(-1)[0]
        return names[int(shares.argmax())], 100 * float(shares.max())


# Tables


def table(states: Iterable[State]) -> pd.DataFrame:
    """Settings and rates as plain columns; the intervals (over images) of the attacked ASR as low
    and high."""
    table = pd.DataFrame(list(states))
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
