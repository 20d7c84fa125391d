"""Figures: a saved one is a picture, its data and its provenance; colours go by role."""

import json

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from helpers import badly_drawn, hard_to_read, one_line

from bvlib.cli import main
from bvlib.report.redraw import redraw
from bvlib.study import figures, figures_badmerging, figures_vectors

TABLE = pd.DataFrame(
    {
        "scale": [0.0, 0.5, 1.0],
        "asr": [1 / 3, 50.0, 99.0],
        "low": [0.0, 40.0, 95.0],
        "high": [2.0, 60.0, 100.0],
        "name": ["a", "b", "c"],
    }
)


@pytest.fixture(autouse=True)
def no_screen():
    matplotlib.use("Agg")
    yield
    matplotlib.pyplot.close("all")


def drawn(table=TABLE, **_):
    fig, (left, right) = figures.grid(2)
    figures.curve(left, table, "scale", "asr", "attack", "one")
    figures.percent(left, "ASR (%)", "scale", "title")
    figures.bars(right, table, "asr", "name", ["attack", "clean", "base"])
    return fig


def test_saved_as_picture_data_and_provenance(tmp_path):
    origin = {"notebook": "01", "parameters": {"seed": 0}}
    paths = figures.save(tmp_path / "figures" / "a.b", TABLE, origin, drawn, title="t")
    assert [path.name for path in paths] == ["a.b.png", "a.b.csv", "a.b.json"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == [
        "a.b.csv",
        "a.b.json",
        "a.b.png",
    ]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    how = {"by": f"{__name__}.drawn", "given": {"title": "t"}}
    assert json.loads(paths[2].read_text()) == {**origin, "drawn": how}
    pd.testing.assert_frame_equal(pd.read_csv(paths[1]), TABLE, rtol=1e-5, check_dtype=False)


def test_the_same_figure_has_the_same_bytes(tmp_path):
    first, again = (
        figures.save(tmp_path / name, TABLE, {}, drawn)[0].read_bytes() for name in ("a", "b")
    )
    assert first == again


def test_a_figure_is_drawn_again_from_its_table(tmp_path):
    table = TABLE.rename(columns={"name": "task"})[["task", "asr", "scale"]]
    saved = figures.save(tmp_path / "a", table, {}, figures_badmerging.accuracies, title="t")
    first = saved[0].read_bytes()
    saved[0].unlink()
    assert redraw(saved[2]) == saved[0] and saved[0].read_bytes() == first
    saved[1].write_text(saved[1].read_text().replace("50", "10"))
    found = CliRunner().invoke(main, ["draw", str(tmp_path)])
    assert found.output == "drew 1 of 1 figures\n" and saved[0].read_bytes() != first


def test_a_table_without_rows_is_drawn_as_a_line_that_says_so(tmp_path):
    table = pd.DataFrame({"axis": [], "placebo": pd.Series([], dtype=bool), "itself": []})
    saved = figures.save(tmp_path / "a", table, {}, figures_vectors.cosine_transfer)
    first = saved[0].read_bytes()
    saved[0].unlink()
    assert redraw(saved[2]).read_bytes() == first


def test_a_figure_of_images_is_left_to_its_notebook(tmp_path):
    *_, card = figures.save(tmp_path / "a", TABLE, {}, drawn, images=torch.ones(2))
    assert redraw(card) is None


@pytest.mark.parametrize("by", ["os.system", "study.figures.__init__", "files.safe.write_text"])
def test_a_card_names_a_drawing_of_bvlib(tmp_path, by):
    (tmp_path / "a.json").write_text(json.dumps({"drawn": {"by": by, "given": {}}}))
    with one_line("a.json", by, "no figure"):
        redraw(tmp_path / "a.json")


def test_a_legend_has_each_label_once_and_is_left_out_where_there_is_none():
    fig, (left, right) = figures.grid(2)
    figures.legend(fig)
    assert not fig.legends
    for ax, label in ((left, "a"), (right, "a"), (right, "b")):
        ax.plot([0, 1], label=label)
    figures.legend(fig)
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["a", "b"]


def test_labels_stand_at_the_lines_apart_and_not_in_the_legend():
    fig, (ax,) = figures.grid(1, width=6)
    ends = {"low": 1, "same": 50, "again": 50, "top": 100}
    for role, (label, end) in zip(figures.ROLES, ends.items()):
        ax.plot([0, 1], [50, end], color=figures.ROLES[role], label=label)
    ax.plot([0, 0.5], [0, 0], label="short")
    ax.axhline(3, label="reference")
    figures.percent(ax, "ASR (%)")
    figures.legend(fig, at_lines=[ax])
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["short", "reference"]
    assert [text.get_text() for text in ax.texts] == list(ends)
    assert [text.get_color() for text in ax.texts] == [line.get_color() for line in ax.lines[:4]]
    low, same, again, top = (text.get_position()[1] for text in ax.texts)
    assert 0 <= low < same < again < top <= 1 and (same + again) / 2 == pytest.approx(0.5, abs=0.01)
    assert not hard_to_read(fig) + badly_drawn(fig)


def test_what_is_badly_drawn_is_found():
    fig, (many, unordered) = figures.grid(2)
    for i in range(7):
        many.plot([0, 1], [i, i], label=f"series {i}")
    unordered.plot(["ties", "average"], [1, 2], label="a line")
    unordered.plot(["ties", "average"], [1, 2], "o", label="points")
    unordered.plot([], [], label="no points")
    found = badly_drawn(fig)
    assert [len(each[1]) for each in found[:1]] == [7] and len(found) == 3
    assert found[1][:2] == ("a line", "a line over") and found[2] == ("drawn nowhere", "no points")


def test_every_role_has_a_colour_of_its_own():
    colours = {role: matplotlib.colors.to_rgb(colour) for role, colour in figures.ROLES.items()}
    assert (
        colours.pop("task_arithmetic") == colours["clean"]
    )  # the clean merge, where no method is named
    assert len(set(colours.values())) == len(colours)


def test_curves_and_bars_wear_the_colour_of_their_role():
    left, right = drawn().axes
    assert (
        left.lines[0].get_color() == figures.ROLES["attack"] and len(left.collections) == 1
    )  # the interval
    assert [bar.get_facecolor()[:3] for bar in right.patches] == [
        matplotlib.colors.to_rgb(figures.ROLES[role]) for role in ("attack", "clean", "base")
    ]
    assert [text.get_text() for text in right.texts] == ["0.3", "50.0", "99.0"]


def test_a_matrix_keeps_its_labels():
    _, (ax,) = figures.grid()
    figures.heatmap(ax, pd.DataFrame([[1, np.nan], [0.5, 1]], ["a", "b"], ["a", "b"]), "title")
    assert [text.get_text() for text in ax.texts] == ["1.00", "0.50", "1.00"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "b"]


def test_pictures_take_both_kinds_of_image():
    bytes_, floats = np.full((5, 8, 8, 3), 51, np.uint8), torch.full((5, 8, 8, 3), 0.2)
    for images in (bytes_, floats):
        fig = figures.pictures(images, ["t"] * 3, columns=4)
        assert len(fig.axes) == 8 and [len(ax.images) for ax in fig.axes] == [1] * 5 + [0] * 3
        assert fig.axes[4].images[0].get_array().shape == (8, 8, 3)
        assert [ax.get_title() for ax in fig.axes] == ["t"] * 3 + [""] * 5
