"""One attack under sliders: the scaled backdoor, the merge and the defence at once, fast enough to
follow the hand.

:class:`Bench` is the core: prepared once, it answers for any setting. Task arithmetic is linear in
its vectors,

    θ = θ_pre + λ·(Σ_t τ_t + λ_BV·BV) − λ_IBVS·BV_injected,

so the sum over the tasks is made once, and a setting costs a few additions and the forward passes
of a small sample.
:func:`panel` is the shell: it hands slider values to the core and shows what comes back;
:func:`sheet` draws the same states side by side for readers without a kernel.
"""

from __future__ import annotations

import base64
import io
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Sequence

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from bvlib.attacks.triggers import PLACES, Dynamic, Trigger
from bvlib.core import metrics
from bvlib.core.errors import BvError
from bvlib.core.rng import generator
from bvlib.core.vectors import StateDict, TaskVector
from bvlib.merging import merge
from bvlib.study import figures
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
        vectors: Mapping[str, TaskVector],
        attack,
        injected: TaskVector,
        task: Task,
        *,
        shown: Tensor | None = None,
        count: int = 300,
        seed: int = 0,
    ) -> "Bench":
        """A bench for ``attack`` (it has ``vector``, ``trigger`` and ``target``) on ``task``,
        merged with the clean ``vectors``.

        ``vectors`` are τ of every merged task, ``injected`` is the defender's own backdoor vector.
        The sample is ``count`` test images drawn by ``seed``, or all when there are fewer; without
        ``shown`` its first ten are shown.
        """
        chosen = torch.randperm(len(task.test), generator=generator(seed, "sample"))[:count]
        images, labels = task.test.images[chosen], task.test.labels[chosen]
        said = (
            f"{len(labels)} of the {len(task.test)} test images of {task.name} (drawn with seed "
            f"{seed}); "
            f"ASR on the {int((labels != attack.target).sum())} of them that are not "
            f"{task.classnames[attack.target]!r}"
        )
        return cls(
            encoder,
            base,
            merge("task_arithmetic", list(vectors.values()), coefficient=1.0),
            attack.vector,
            injected,
            encoder.head(task.classnames, task.prompts),
            task.classnames,
            images,
            labels,
            images[:10] if shown is None else shown,
            attack.trigger,
            attack.target,
            said,
        )

    def theta(self, lambda_bv: float, coefficient: float, lambda_ibvs: float) -> StateDict:
        """θ of a setting; λ_BV = 0 and λ_IBVS = 0 is the clean merge, λ_BV = 1 and λ_IBVS = 0 the
        attacked one."""
        return self.base + (
            coefficient * (self.honest + lambda_bv * self.bv) - lambda_ibvs * self.injected
        )

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
        setting, theta = (
            (float(lambda_bv), float(coefficient), float(lambda_ibvs)),
            self.theta(lambda_bv, coefficient, lambda_ibvs),
        )
        prediction, probability = self._read(theta, self.pixels(image, place))
        before, probability_before = self._read(theta, self.pixels(image))
        return {
            "lambda_bv": setting[0],
            "coefficient": setting[1],
            "lambda_ibvs": setting[2],
            "place": place,
            "image": image,
            "accuracy": self._accuracy(setting, theta),
            "asr": self._asr(setting, place, theta),
            "asr_clean": self._asr((0.0, *setting[1:]), place),
            "prediction": prediction,
            "probability": probability,
            "before": before,
            "probability_before": probability_before,
        }

    def pixels(self, image: int, place: str | None = None) -> Tensor:
        """A shown image (1, 3, H, W) in [0, 1], with the trigger when a place is given."""
        pixels = self.encoder.pixels(self.shown[image : image + 1])
        return pixels if place is None else self._placed(place).paste(pixels)

    def _placed(self, place: str) -> Trigger | Dynamic:
        return (
            self.trigger.at(place) if self.trigger.fixed else self.trigger
        )  # a dynamic trigger has no place of its own

    @torch.no_grad()
    def _read(self, theta: StateDict, pixels: Tensor) -> tuple[str, float]:
        shares = self.encoder.logits(self.encoder.features(theta, pixels), self.head).softmax(-1)[0]
        return self.classnames[int(shares.argmax())], 100 * float(shares.max())

    def _accuracy(self, setting: tuple, theta: StateDict) -> metrics.Rate:
        return self._once(
            setting,
            lambda: metrics.accuracy(
                self.encoder.predict(theta, self.images, self.head, batch=150), self.labels
            ),
        )

    def _asr(self, setting: tuple, place: str, theta: StateDict | None = None) -> metrics.Rate:
        others = (
            self.labels != self.target
        )  # images of the target class do not count: they need no pass

        def make():
            found = self.encoder.predict(
                theta or self.theta(*setting),
                self.images[others],
                self.head,
                self._placed(place),
                batch=150,
            )
            return metrics.attack_success_rate(found, self.labels[others], self.target)

        return self._once((*setting, place), make)

    def _once(self, key: tuple, make: Callable[[], metrics.Rate]) -> metrics.Rate:
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


# Drawing


def show(ax, bench: Bench, state: State) -> None:
    """The shown image of a state with the trigger."""
    ax.imshow(
        bench.pixels(state["image"], state["place"])[0].permute(1, 2, 0).cpu().numpy(),
        interpolation="nearest",
    )
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color="0.6", linewidth=0.5)  # a white patch ends somewhere too


def read(ax, bench: Bench, state: State) -> None:
    """What the merge takes the triggered image for, as a title: in red when it is the target
    class."""
    hit = state["prediction"] == bench.classnames[bench.target]
    ax.set_title(
        f"“{state['prediction']}” {state['probability']:.0f} %",
        fontsize=8,
        pad=3,
        color=figures.ROLES["attack"] if hit else "black",
    )


def rates(ax, state: State, labels: bool = True) -> None:
    """Accuracy and ASR of a state as bars."""
    values = [state[key] for key in BARS]
    shown = pd.DataFrame(
        {
            "value": [v.percent for v in values],
            "low": [v.low for v in values],
            "high": [v.high for v in values],
            "label": [label if labels else "" for label, _ in BARS.values()],
        }
    )
    figures.bars(ax, shown, "value", "label", [role for _, role in BARS.values()])
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(0, 125)


def render(bench: Bench, state: State) -> bytes:
    """One state as a PNG, the picture of the panel."""
    fig = Figure(figsize=(6.4, 2.2), dpi=90, layout="none")
    left, right = fig.add_axes((0.02, 0.14, 0.25, 0.72)), fig.add_axes((0.44, 0.2, 0.53, 0.72))
    show(left, bench, state)
    read(left, bench, state)
    left.set_xlabel(
        f"without the patch “{state['before']}” {state['probability_before']:.0f} %", fontsize=7
    )
    rates(right, state)
    right.set_xlabel("%, with 95 % intervals over images", fontsize=8)
    drawn = io.BytesIO()
    fig.savefig(drawn, format="png", dpi="figure")
    return drawn.getvalue()


def sheet(
    bench: Bench, rows: Mapping[str, State], columns: Mapping[str, State], **rest
) -> tuple[Figure, pd.DataFrame]:
    """States side by side and their table: the setting of a cell is ``rest`` with what its row and
    its column set.

    ``rows`` and ``columns`` are from heading to settings, as in ``{"λ_BV = 2": {"lambda_bv":
    2}}``. The image is drawn once a row, so columns change the merge, not the image or its patch.
    """
    fig, axes = figures.grid(
        1 + len(columns),
        len(rows),
        width=1.9,
        height=1.25,
        dpi=80,
        gridspec_kw={"width_ratios": [0.62] + [1] * len(columns)},
    )
    found = []
    for (row, ours), (picture, *cells) in zip(rows.items(), np.reshape(axes, (len(rows), -1))):
        first, last = row == next(iter(rows)), row == list(rows)[-1]
        for ax, (column, theirs) in zip(cells, columns.items()):
            found.append(bench.at(**{**rest, **ours, **theirs}))
            rates(ax, found[-1], labels=ax is cells[0])
            read(ax, bench, found[-1])
            ax.tick_params(axis="x", labelbottom=last)
            ax.set_xlabel("%" if last else "")
            if first:
                ax.annotate(
                    column,
                    (0.5, 1),
                    (0, 17),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    ha="center",
                    fontsize=9,
                )
        show(picture, bench, found[-1])
        picture.set_ylabel(row)
    return fig, table(found)


def table(states: Sequence[State]) -> pd.DataFrame:
    """Settings and rates as plain columns; the intervals (over images) of the attacked ASR as low
    and high."""
    plain = [
        {k: v.percent if isinstance(v, metrics.Rate) else v for k, v in state.items()}
        for state in states
    ]
    return pd.DataFrame(plain).assign(
        low=[s["asr"].low for s in states], high=[s["asr"].high for s in states]
    )


# The shell


class Panel(widgets.VBox):
    """The sliders and their picture; ``controls`` by the names of :meth:`Bench.at`, ``state`` and
    ``seconds`` of the last update."""

    def __init__(self, bench: Bench, **start):
        start = {
            "lambda_bv": 1.0,
            "coefficient": 0.3,
            "lambda_ibvs": 0.0,
            "place": getattr(bench.trigger, "place", "bottom-right"),
            "image": 0,
        } | start
        look = {
            "continuous_update": False,
            "style": {"description_width": "11em"},
            "layout": {"width": "34em"},
        }

        def slider(name, description, low, high):
            return widgets.FloatSlider(
                start[name], min=low, max=high, step=0.05, description=description, **look
            )

        self.controls = {
            "lambda_bv": slider("lambda_bv", "λ_BV (backdoor)", -1, 2),
            "coefficient": slider("coefficient", "λ (merging)", 0, 1),
            "lambda_ibvs": slider("lambda_ibvs", "λ_IBVS (defence)", 0, 3),
            "place": widgets.Dropdown(
                options=list(PLACES),
                value=start["place"],
                description="place of the patch",
                style=look["style"],
                layout=look["layout"],
            ),
            "image": widgets.IntSlider(
                start["image"], min=0, max=len(bench.shown) - 1, description="image", **look
            ),
        }
        self.bench, self.picture, self.note = bench, widgets.Image(format="png"), widgets.Label()
        super().__init__([*self.controls.values(), self.picture, self.note])
        for control in self.controls.values():
            control.observe(self.update, names="value")
        self.update()

    def update(self, _change=None) -> None:
        """Ask the core, draw, and say how long both took."""
        began = time.perf_counter()
        self.state = self.bench.at(
            **{name: control.value for name, control in self.controls.items()}
        )
        self.picture.value = render(self.bench, self.state)
        self.seconds = time.perf_counter() - began
        self.note.value = f"{self.bench.said}. {self.seconds:.2f} s"

    def _repr_mimebundle_(self, **kwargs) -> dict[str, Any]:
        """The widget, and its picture of this moment for viewers that show no widgets."""
        return {
            **super()._repr_mimebundle_(**kwargs),
            "image/png": base64.b64encode(self.picture.value).decode(),
        }


def panel(bench: Bench, **start) -> Panel:
    """The sliders for a bench; ``start`` sets where they stand, by the names of
    :meth:`Bench.at`."""
    return Panel(bench, **start)
