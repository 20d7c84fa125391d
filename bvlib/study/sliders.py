"""The sliders over a :class:`~bvlib.study.interactive.Bench`, and the same states side by side.

:class:`Panel` is the shell: it hands slider values to the core and shows what comes back;
:func:`side_by_side` and :func:`sheet` are for readers without a kernel.
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
from bvlib.study.interactive import BARS, Bench, State

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


def side_by_side(
    bench: Bench, rows: Mapping[str, State], columns: Mapping[str, State], **rest
) -> dict[tuple[str, str], State]:
    """{(row, column): state}: the setting of a cell is ``rest`` with what its row and its column
    set. ``rows`` and ``columns`` are from heading to settings: {"λ_BV = 2": {"lambda_bv": 2}}."""
    return {
        (row, column): bench.at(**{**rest, **ours, **theirs})
        for row, ours in rows.items()
        for column, theirs in columns.items()
    }


def sheet(_table: pd.DataFrame, bench: Bench, states: Mapping[tuple[str, str], State]) -> Figure:
    """The states of :func:`side_by_side`. The image is drawn once a row, so columns change the
    merge, not the image or its patch."""
    names, columns = (list(dict.fromkeys(headings)) for headings in zip(*states))
    size = {"width": 1.9, "height": 1.25, "dpi": 80}
    widths = {"width_ratios": [0.62] + [1] * len(columns)}
    fig, axes = figures.grid(1 + len(columns), len(names), **size, gridspec_kw=widths)
    head = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center"}
    for name, (picture, *cells) in zip(names, np.reshape(axes, (len(names), -1))):
        for ax, column in zip(cells, columns):
            rates(ax, states[name, column], labels=ax is cells[0])
            read(ax, bench, states[name, column])
            ax.tick_params(axis="x", labelbottom=name == names[-1])
            ax.set_xlabel("%" if name == names[-1] else "")
            if name == names[0]:
                ax.annotate(column, (0.5, 1), (0, 17), fontsize=9, **head)
        show(picture, bench, states[name, columns[-1]])
        picture.set_ylabel(name)
    return fig


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
        self.bench, self.picture = bench, widgets.Image(format="png")
        self.numbers, self.note = widgets.Label(), widgets.Label()
        super().__init__([*self.controls.values(), self.picture, self.numbers, self.note])
        for control in self.controls.values():
            control.observe(self.update, names="value")
        self.update()

    def update(self, _change=None) -> None:
        """Ask the core, draw, say the numbers for those who see no pictures, and how long both
        took."""
        began = time.perf_counter()
        setting = {name: control.value for name, control in self.controls.items()}
        self.state = self.bench.at(**setting)
        self.picture.value = render(self.bench, self.state)
        self.seconds = time.perf_counter() - began
        told = [f"{label} {self.state[key].percent:.1f} %" for key, (label, _) in BARS.items()]
        self.numbers.value = ", ".join(told)
        self.note.value = f"{self.bench.said}. {self.seconds:.2f} s"

    def _repr_mimebundle_(self, **kwargs) -> dict[str, Any]:
        """The widget, and its picture of this moment for viewers that show no widgets."""
        picture = {"image/png": base64.b64encode(self.picture.value).decode()}
        return super()._repr_mimebundle_(**kwargs) | picture
