"""What a notebook shows of a table and a picture."""

import base64
import doctest

import pandas as pd

from bvlib.study import figures, shown, words

NAN = float("nan")


def test_numbers_are_rounded_and_intervals_stand_beside_them():
    table = pd.DataFrame(
        {
            "attack": ["badnets", None],
            "ASR": [45.94, 3.0],
            "low": [42.71, NAN],
            "high": [49.2, NAN],
            "norm": [1.234, NAN],
            "count": [3, 4],
        }
    )
    assert shown.in_words(table).to_dict("list") == {
        "attack": ["BadNets", "–"],
        "ASR": ["45.9 [42.7, 49.2]", "3.0"],
        "norm": ["1.23", "–"],
        "count": ["3", "4"],
    }
    pair = pd.DataFrame({"low": [1.0], "minus one BV": [-4.0], "from": [-6.0], "to": [-2.0]})
    alone = {"low": ["1.00"]}  # it is no interval where no value stands before it
    found = shown.in_words(pair).to_dict("list")
    assert found == {**alone, "minus one BV": ["-4.00 [-6.00, -2.00]"]}


def test_a_long_table_shows_twelve_rows_and_where_the_others_are():
    long = pd.DataFrame({"n": range(20)})
    page = shown.table(long, "from a < b", "tables/long.csv").data
    assert page.count("<tr>") == 12 and "from a &lt; b" in page
    assert '<a href="tables/long.csv">all 20 rows</a>' in page
    assert ">data</a>" in shown.table(long.head(3), "", "tables/short.csv").data


def test_a_view_is_shown_and_the_file_has_all():
    long = pd.DataFrame({"n": range(5), "of": "abcde"})
    page = shown.table(long, "", "tables/long.csv", long[["of"]].head(2)).data
    assert page.count("<tr>") == 2 and "<th>n</th>" not in page
    assert '<a href="tables/long.csv">all 5 rows</a>' in page
    assert ">data</a>" in shown.table(long, "", "tables/long.csv", long[["of"]]).data


def test_a_wide_view_has_a_column_for_each_value():
    rows = [("badnets", "merge", 45.94, 42.7, 49.2), ("badnets", "base", 1.0, NAN, NAN)]
    rows += [("another", "merge", 3.0, NAN, NAN)]
    table = pd.DataFrame(rows, columns=["attack", "model", "ASR", "low", "high"])
    assert shown.wide(table, "attack", "model", "ASR").to_dict("list") == {
        "attack": ["BadNets", "another"],
        "merge": ["45.9 [42.7, 49.2]", "3.0"],
        "base": ["1.0", "–"],
    }


def test_a_picture_has_its_caption_as_text(tmp_path, monkeypatch):
    fig, _ = figures.grid()
    png, said = figures.save_picture(fig, tmp_path / "a.png"), []
    monkeypatch.setattr(shown, "display", lambda what, **how: said.append((what, how)))
    shown.picture(png, "what it shows")
    (picture, how), (words, _) = said
    assert base64.b64decode(picture["image/png"]) == png.read_bytes()
    assert how["metadata"]["image/png"]["alt"] == picture["text/plain"] == "what it shows"
    assert "what it shows" in words.data


def test_methods_are_called_as_papers_call_them_in_tables_and_figures():
    assert doctest.testmod(words).failed == 0
    table = pd.DataFrame({"merging": ["ties", "a plugin's"], "badmerging-on": [1.0, 2.0]})
    page = shown.table(table, "", "t.csv").data
    assert "<td>TIES</td>" in page and "a plugin's" in page and "<th>BadMerging-On</th>" in page
    fig, (ax,) = figures.grid()
    ax.barh(["badnets", "task_arithmetic"], [1, 2], label="badmerging-off, clean merge")
    ax.set_title("dare: the average")
    figures.legend(fig)
    words.in_figure(fig)
    fig.canvas.draw()
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["BadNets", "Task Arithmetic"]
    assert ax.get_title() == "DARE: the average"
    (text,) = fig.legends[0].get_texts()
    assert text.get_text() == "BadMerging-Off, clean merge"
