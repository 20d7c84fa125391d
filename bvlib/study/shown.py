"""How a notebook shows tables and pictures: in words, short, with a caption. The files beside it
hold all of it."""

import base64
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML, display

from bvlib.study.words import words

ROWS = 12  # of a table; the rest is a link away
ENDS = {("low", "high"), ("from", "to")}  # columns that are the interval of the one before them


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A table as text: methods called as papers call them, numbers rounded (one digit after the
    point in a column that reaches 10, else two), a value and its interval as "45.9 [42.7, 49.2]",
    what is undefined as "–"."""
    columns, shown = list(table.columns), {}
    while columns:
        name, ends = columns.pop(0), tuple(columns[:2])
        shown[name] = _words(table[name])
        if ends in ENDS:
            each = zip(shown[name], *(_words(table[end]) for end in ends), strict=True)
            shown[name] = [v if low == "–" else f"{v} [{low}, {high}]" for v, low, high in each]
            del columns[:2]
    return pd.DataFrame(shown)


def _words(column: pd.Series) -> list[str]:
    if not pd.api.types.is_float_dtype(column):
        return ["–" if pd.isna(value) else words(str(value)) for value in column]
    digits = 1 if column.abs().max() >= 10 else 2
    return ["–" if pd.isna(value) else f"{value:.{digits}f}" for value in column]


def table(data: pd.DataFrame, caption: str, file: str, view: pd.DataFrame | None = None) -> HTML:
    """The first :data:`ROWS` rows of a table, or of a ``view`` of it, :func:`in_words`, over its
    caption and a link to the file that has all of it."""
    view = (data if view is None else view).head(ROWS)
    whole = f"all {len(data)} rows" if len(data) > len(view) else "data"
    body = in_words(view).rename(columns=words).to_html(index=False, border=0)
    link = f'<a href="{escape(file)}">{whole}</a>'
    return HTML(f"{body}<p><em>{escape(caption)}</em> ({link})</p>")


def wide(data: pd.DataFrame, down: str, across: str, value: str) -> pd.DataFrame:
    """A view of a table: a row for each of column ``down``, a column for each of ``across``, both
    in the order of the table, and in the cells ``value`` :func:`in_words`."""
    words = in_words(data)
    rows, columns = (list(dict.fromkeys(words[name])) for name in (down, across))
    cells = words.pivot(index=down, columns=across, values=value).loc[rows, columns].fillna("–")
    return cells.rename_axis(columns=None).reset_index()


def picture(png: Path, caption: str) -> None:
    """Show a picture with its caption under it, which is its text for those who do not see it."""
    data: Any = {"image/png": base64.b64encode(png.read_bytes()).decode(), "text/plain": caption}
    display(data, raw=True, metadata={"image/png": {"alt": caption}})
    display(HTML(f"<p><em>{escape(caption)}</em></p>"))
