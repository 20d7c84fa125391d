"""The sliders over a :class:`~bvlib.study.interactive.Bench`, and the same states side by side.

:class:`Panel` is the shell: it hands slider values to the core and shows what comes back;
:func:`sheet` draws states for readers without a kernel.
"""

import base64
import io
import time
from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bvlib.attacks.triggers import PLACES
from bvlib.study import figures
from bvlib.study.experiments import row
from bvlib.study.interactive import BARS, Bench, State, table

# Drawing


def show(ax, bench: Bench, state: State) -> None:
    """The shown image of a state with the trigger."""
    pixels = bench.pixels(state["image"], state["place"])[0].permute(1, 2, 0).cpu().numpy()
    ax.imshow(pixels, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color="0.6", linewidth=0.5)  # a white patch ends somewhere too


def read(ax, bench: Bench, state: State) -> None:
    """What the merge takes the triggered image for, as a title: in red when it is the target
    class."""
    hit = state["prediction"] == bench.sample.classnames[bench.target]
    look = {"fontsize": 8, "pad": 3, "color": figures.ROLES["attack"] if hit else "black"}
    ax.set_title(f"“{state['prediction']}” {state['probability']:.0f} %", **look)


def rates(ax, state: State, labels: bool = True) -> None:
    """Accuracy and ASR of a state as bars."""
    shown = pd.DataFrame([row(state[key], "value") for key in BARS])
    shown["label"] = [label if labels else "" for label, _ in BARS.values()]
    figures.bars(ax, shown, "value", "label", [role for _, role in BARS.values()])
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(0, 125)


def render(bench: Bench, state: State) -> bytes:
    """One state as a PNG, the picture of the panel."""
    fig = Figure(figsize=(6.4, 2.2), dpi=90, layout="none")
    left, right = fig.add_axes((0.02, 0.14, 0.25, 0.72)), fig.add_axes((0.44, 0.2, 0.53, 0.72))
    show(left, bench, state)
    read(left, bench, state)
    before = f"“{state['before']}” {state['probability_before']:.0f} %"
    left.set_xlabel(f"without the patch {before}", fontsize=7)
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
    size = {"width": 1.9, "height": 1.25, "dpi": 80}
    widths = {"width_ratios": [0.62] + [1] * len(columns)}
    fig, axes = figures.grid(1 + len(columns), len(rows), **size, gridspec_kw=widths)
    head = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center"}
    found = []
    for (name, ours), (picture, *cells) in zip(rows.items(), np.reshape(axes, (len(rows), -1))):
        first, last = name == next(iter(rows)), name == list(rows)[-1]
        for ax, (column, theirs) in zip(cells, columns.items()):
            found.append(bench.at(**{**rest, **ours, **theirs}))
            rates(ax, found[-1], labels=ax is cells[0])
            read(ax, bench, found[-1])
            ax.tick_params(axis="x", labelbottom=last)
            ax.set_xlabel("%" if last else "")
            if first:
                ax.annotate(column, (0.5, 1), (0, 17), fontsize=9, **head)
        show(picture, bench, found[-1])
        picture.set_ylabel(name)
    return fig, table(found)


def seconds(bench: Bench, **setting) -> float:
    """Time of one update that nothing is known about yet: weights, rates, picture."""
    began = time.perf_counter()
    render(bench, bench.at(**setting))
    return time.perf_counter() - began


# The shell


class Panel(widgets.VBox):
    """The sliders and their picture; ``controls`` by the names of :meth:`Bench.at`, ``state`` and
    ``seconds`` of the last update. ``start`` sets where the sliders stand, by the same names."""

    def __init__(self, bench: Bench, **start):
        place = getattr(bench.trigger, "place", "bottom-right")
        usual = {"lambda_bv": 1.0, "coefficient": 0.3, "lambda_ibvs": 0.0, "image": 0}
        start = {"place": place, **usual, **start}
        look = {"style": {"description_width": "11em"}, "layout": {"width": "34em"}}

        def slider(value, low, high, description, kind=widgets.FloatSlider, **step):
            said = {"description": description, "continuous_update": False}
            return kind(value, min=low, max=high, **said, **step, **look)

        places = {"options": list(PLACES), "description": "place of the patch"}
        fine, last = {"step": 0.05}, len(bench.shown) - 1
        self.controls = {
            "lambda_bv": slider(start["lambda_bv"], -1, 2, "λ_BV (backdoor)", **fine),
            "coefficient": slider(start["coefficient"], 0, 1, "λ (merging)", **fine),
            "lambda_ibvs": slider(start["lambda_ibvs"], 0, 3, "λ_IBVS (defence)", **fine),
            "place": widgets.Dropdown(value=start["place"], **places, **look),
            "image": slider(start["image"], 0, last, "image", widgets.IntSlider),
        }
        self.bench, self.picture, self.note = bench, widgets.Image(format="png"), widgets.Label()
        super().__init__([*self.controls.values(), self.picture, self.note])
        for control in self.controls.values():
            control.observe(self.update, names="value")
        self.update()

    def update(self, _change=None) -> None:
        """Ask the core, draw, and say how long both took."""
        began = time.perf_counter()
        setting = {name: control.value for name, control in self.controls.items()}
        self.state = self.bench.at(**setting)
        self.picture.value = render(self.bench, self.state)
        self.seconds = time.perf_counter() - began
        self.note.value = f"{self.bench.said}. {self.seconds:.2f} s"

    def _repr_mimebundle_(self, **kwargs) -> dict[str, Any]:
        """The widget, and its picture of this moment for viewers that show no widgets."""
        picture = {"image/png": base64.b64encode(self.picture.value).decode()}
        return super()._repr_mimebundle_(**kwargs) | picture
