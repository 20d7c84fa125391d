"""What a notebook shows of a table and a picture."""

import pandas as pd
from IPython.utils.capture import capture_output

from bvlib.study import figures, shown

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
        "attack": ["badnets", "–"],
        "ASR": ["45.9 [42.7, 49.2]", "3.0"],
        "norm": ["1.23", "–"],
        "count": ["3", "4"],
    }
    pair = pd.DataFrame({"low": [1.0], "minus one BV": [-4.0], "from": [-6.0], "to": [-2.0]})
    assert shown.in_words(pair).to_dict("list") == {"minus one BV": ["-4.00 [-6.00, -2.00]"]}


def test_a_long_table_shows_twelve_rows_and_where_the_others_are():
    long = pd.DataFrame({"n": range(20)})
    page = shown.table(long, "from a < b", "tables/long.csv").data
    assert page.count("<tr>") == 12 and "from a &lt; b" in page
    assert '<a href="tables/long.csv">all 20 rows</a>' in page
    assert ">data</a>" in shown.table(long.head(3), "", "tables/short.csv").data


def test_a_picture_has_its_caption_as_text(tmp_path):
    fig, _ = figures.grid()
    png = figures.save_picture(fig, tmp_path / "a.png")
    with capture_output() as said:
        shown.picture(png, "what it shows")
    picture, words = said.outputs
    assert picture.metadata["image/png"]["alt"] == "what it shows" and "image/png" in picture.data
    assert "what it shows" in words.data["text/html"]
