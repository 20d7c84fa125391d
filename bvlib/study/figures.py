"""One style, one palette by role; a saved figure is a picture, its data and its provenance.

Sizes are in ``bvlib.mplstyle``. Colours are by what a thing *is*, so the same colour means the same
in every figure: see :data:`ROLES`. All numbers on axes are percent unless the label says otherwise.
"""

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from bvlib.files.safe import write_json, write_whole
from bvlib.study.words import in_figure

ROLES = {
    "attack": "#c0392b",
    "second": "#e08e45",  # the attack that a figure is about, and the one beside it
    "base": "#6b6b6b",
    "clean": "#2c6fbb",
    "own": "#1b9aaa",  # models without an attack: base, merge, one task's fine-tune
    "average": "#9cc3e6",
    "task_arithmetic": "#2c6fbb",
    "ties": "#173a63",  # clean merges, where several methods are compared
    "random": "#b8a14a",
    "nothing": "#c9c9c9",  # controls on the input: a random patch, no trigger
    "placebo": "#9a7bb5",
    "defended": "#2e8b57",  # vectors: those without a backdoor, those that a defence subtracts
    "oracle": "#222222",
    "accuracy": "#7a4a1e",  # what no defender has; an accuracy drawn beside an ASR
}

plt.style.use(Path(__file__).with_name("bvlib.mplstyle"))

WIDEST = 9.0  # inches: at 850 px a letter of 7 pt is then 9 px high
ZERO = {"color": ROLES["clean"], "lw": 1, "ls": ":", "label": "clean merge, same trigger"}


def grid(columns: int = 1, rows: int = 1, width: float = 3.4, height: float = 2.6, **kwargs):
    """A figure and its axes (always an array), in the house style; a panel is ``width`` inches
    wide, and all of them together at most :data:`WIDEST`."""
    size = (min(width * columns, WIDEST), height * rows)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **kwargs)
    return fig, axes[0] if rows == 1 else axes


def panels(table: pd.DataFrame, by: str, beside: int = 1, across: int = 3, **kwargs):
    """A figure with ``beside`` panels for each value of column ``by``, its axes, and the parts of
    the table [(value, rows)] in its order.

    One panel each: they follow each other, ``across`` in a row, or one fewer where the last would
    stand alone. Several: a row for each value, and the axes have as many rows.
    """
    parts = list(table.groupby(by, sort=False))
    across -= len(parts) > across and len(parts) % across == 1
    columns = beside if beside > 1 else min(across, len(parts))
    rows = len(parts) if beside > 1 else -(-len(parts) // columns)
    fig, axes = grid(columns, rows, **kwargs)
    if beside > 1:
        return fig, np.reshape(axes, (rows, beside)), parts
    axes = np.ravel(axes)
    for ax in axes[len(parts) :]:
        ax.set_axis_off()
    return fig, axes[: len(parts)], parts


def colours(*roles: str) -> list[str]:
    """The colours of roles."""
    return [ROLES[role] for role in roles]


def interval(table: pd.DataFrame, value: str, low: str = "low", high: str = "high") -> dict:
    """How bars of a column show the interval that two other columns hold."""
    reach = [table[value] - table[low], table[high] - table[value]]
    return {"xerr": reach, "error_kw": {"ecolor": "black", "lw": 0.8}}


def curve(
    ax, table: pd.DataFrame, x: str, y: str, role: str, label: str, band: bool = True, **line
) -> None:
    """A line with its interval (columns low and high when there are any) in a role's colour."""
    look = {"color": ROLES[role], "marker": "o", "ms": 3, "lw": 1.5, **line}
    ax.plot(table[x], table[y], label=label, **look)
    if band and {"low", "high"} <= set(table.columns):
        ax.fill_between(table[x], table["low"], table["high"], color=ROLES[role], alpha=0.15, lw=0)


def percent(ax, ylabel: str, xlabel: str = "", title: str = "") -> None:
    """Percent on the y axis from 0, labels, title."""
    ax.set(ylabel=ylabel, xlabel=xlabel, title=title, ylim=(-2, 102))


def bars(ax, table: pd.DataFrame, value: str, label: str, roles: Sequence[str]) -> None:
    """Horizontal bars with intervals (columns low and high) and their values written beside
    them."""
    y = np.arange(len(table))[::-1]
    ax.barh(y, table[value], color=colours(*roles), height=0.65, **interval(table, value))
    for at, v, e in zip(y, table[value], table["high"]):
        ax.text(max(e, 0) + 1.5, at, f"{v:.1f}", va="center", fontsize=7.5)
    ax.set(yticks=y, yticklabels=table[label], xlim=(0, 112))
    ax.set_xticks(range(0, 101, 25))
    ax.grid(axis="y", visible=False)


def grouped(ax, table: pd.DataFrame, roles: Sequence[str], **axes) -> None:
    """Horizontal bars of percent: a group a row, a bar a column; the first of both is on top."""
    shown = table.iloc[::-1, ::-1]
    shown.plot.barh(ax=ax, width=0.8, color=colours(*roles)[::-1], legend=False)
    ax.set(**{"xlabel": "ASR (%)", "ylabel": "", "xlim": (0, 102), **axes})


def heatmap(
    ax, table: pd.DataFrame, title: str, fmt: str = ".2f", reach: float = 1, label: str = ""
) -> None:
    """A labelled matrix, coloured from −reach to reach; blank where there is no number."""
    look = {"annot": True, "annot_kws": {"size": 7}, "cmap": "vlag", "linewidths": 0.5}
    scale = {"vmin": -reach, "vmax": reach, "cbar_kws": {"label": label, "shrink": 0.8}}
    import seaborn as sns  # here, as it takes seconds to load

    engine = ax.figure.get_layout_engine()
    ax.figure.set_layout_engine("none")  # seaborn draws the whole figure, for each panel once
    sns.heatmap(table.astype(float), ax=ax, fmt=fmt, **scale, **look)
    ax.figure.set_layout_engine(engine)
    ax.set(title=title, xlabel="", ylabel="")
    ax.grid(False)
    ax.tick_params(axis="y", rotation=0)
    plt.setp(ax.get_xticklabels(), rotation=35, ha="right")


def pictures(
    images,
    titles: Sequence[str] = (),
    columns: int = 8,
    side: float = 0.9,
    names: Sequence[str] = (),
):
    """A sheet of images (N, H, W, 3), uint8 or float in [0, 1], with short titles, or with
    ``names`` of its rows."""
    rows = max(1, -(-len(images) // columns))
    fig, axes = grid(columns, rows, side, side * (1.22 if len(titles) else 1.0))
    for ax, i in zip(np.ravel(axes), range(rows * columns)):
        ax.axis("off")
        if i < len(images):
            ax.imshow(np.asarray(images[i]), interpolation="nearest")
            if i < len(titles):
                ax.set_title(textwrap.fill(titles[i], 13), fontsize=7, pad=2)
    for ax, name in zip(np.ravel(axes)[::columns], names):
        ax.text(-0.1, 0.5, name, transform=ax.transAxes, ha="right", va="center", fontsize=8)
    return fig


def legend(fig, reverse: bool = False, at_lines: Sequence[Any] = (), **look) -> None:
    """One legend below all panels, with each label once. What :func:`label_lines` writes beside the
    curves of the axes ``at_lines`` is left out."""
    shown: dict[str, Any] = {}
    for ax in fig.axes:
        for handle, label in zip(*ax.get_legend_handles_labels()):
            shown.setdefault(label, handle)
    written = {curve.get_label() for ax in at_lines for curve in _to_the_end(ax)}
    labels = [label for label in shown if label not in written][:: -1 if reverse else 1]
    if labels:
        columns = max(1, int(fig.get_figwidth() / (0.5 + 0.075 * max(map(len, labels)))))
        look = {"loc": "outside lower center", "ncol": min(columns, len(labels)), **look}
        fig.legend([shown[label] for label in labels], labels, **look)
    for ax in at_lines:
        label_lines(ax)


def _to_the_end(ax) -> list:
    """The labelled curves of a panel that reach as far to the right as any, lowest end first."""
    curves = [c for c in ax.lines if c.get_transform() == ax.transData and len(c.get_xdata())]
    right = max((c.get_xdata()[-1] for c in curves), default=0)
    ends = [c for c in curves if c.get_xdata()[-1] == right and np.isfinite(c.get_ydata()[-1])]
    named = [c for c in ends if not c.get_label().startswith("_")]
    return sorted(named, key=lambda c: c.get_ydata()[-1])


def label_lines(ax, size: float = 8) -> None:
    """Write the labels of curves beside their right ends, in their colours and apart from each
    other; a short piece of the curve's own line leads to its label. The last thing before a figure
    is saved: labels share the height that the panel has now."""
    from sklearn.isotonic import isotonic_regression  # here, as it takes a second to load

    ax.figure.draw_without_rendering()
    curves, to_axes = _to_the_end(ax), (ax.transData - ax.transAxes).transform
    ends = [(c.get_xdata()[-1], c.get_ydata()[-1]) for c in curves]
    apart = np.arange(len(curves)) * 1.3 * size / (72 * ax.bbox.height / ax.figure.dpi)
    free, wanted = max(0, 1 - max(apart, default=0)), [to_axes(end)[1] for end in ends] - apart
    # the nearest places to the curves' ends that keep their order, each a line above the last
    places = isotonic_regression(wanted, y_min=0, y_max=free) + apart if curves else ()
    for curve, end, place in zip(curves, ends, places):
        color, ls = curve.get_color(), curve.get_linestyle()
        lead = {"arrowstyle": "-", "color": color, "ls": ls, "relpos": (0, 0.5), "shrinkA": 1}
        look = {"color": color, "size": size, "va": "center", "textcoords": "axes fraction"}
        ax.annotate(curve.get_label(), end, (1.06, place), arrowprops=lead, **look)


def save_picture(fig, png: Path) -> Path:
    """Write a figure as a PNG; its path."""
    look = {"format": "png", "bbox_inches": "tight", "metadata": {"Software": None}}
    write_whole(png, lambda draft: fig.savefig(draft, **look))
    return png


def save(
    path: Path, data: pd.DataFrame, provenance: Mapping, draw: Callable[..., Any], **given
) -> list[Path]:
    """Write ``path``.csv, ``path``.png and ``path``.json: a table, the picture that
    ``draw(table, **given)`` makes of it, and where both come from.

    What is drawn is the table as its file holds it, and the card keeps the function's name and what
    it is given, so that `bv draw` draws the same. Images fit into no card: a figure that is
    given some is drawn by its notebook alone.
    """
    path = Path(path)
    csv, card = (path.with_name(path.name + end) for end in (".csv", ".json"))
    write_whole(csv, lambda draft: data.to_csv(draft, index=False, float_format="%.6g"))
    drawn = None
    try:
        given = json.loads(json.dumps(given, sort_keys=True))  # as the card keeps it
        drawn = {"by": f"{draw.__module__}.{draw.__name__}".removeprefix("bvlib."), "given": given}
    except TypeError:
        pass
    write_json(card, {**provenance, "drawn": drawn})
    return [picture_of(csv, draw, given), csv, card]


def picture_of(csv: Path, draw: Callable[..., Any], given: Mapping[str, Any]) -> Path:
    """Draw a saved table as the PNG beside it; its path. A table without rows is drawn as one line
    that says so: its columns have no types, and no drawing has anything to show."""
    table = pd.read_csv(csv, keep_default_na=False, na_values=[""])
    fig = _nothing() if table.empty else draw(table, **given)
    in_figure(fig)
    plt.close(fig)  # else Jupyter shows it again
    return save_picture(fig, csv.with_name(csv.name.removesuffix(".csv") + ".png"))


def _nothing():
    """A figure that says that there is nothing to draw."""
    fig, (ax,) = grid(height=0.6)
    ax.axis("off")
    ax.text(0.5, 0.5, "nothing to draw: no rows", ha="center", va="center")
    return fig
