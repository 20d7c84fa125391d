"""What the pages and tables of the report share: Markdown tables, seeds in words, and CSV files
whose cells stay the text they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bvlib.files.safe import write_whole

if TYPE_CHECKING:  # pandas takes a second: what needs no table answers at once
    import pandas as pd


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in [titles, ["---"] * len(titles), *rows]]


def aligned(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table for a terminal."""
    widths = [max(map(len, column)) for column in zip(titles, *rows)]
    cells = [map(str.ljust, row, widths) for row in (titles, *rows)]
    return ["  ".join(row).rstrip() for row in cells]


def seeds_in_words(seeds: Sequence[int]) -> str:
    """ "seed 0", "seeds 0, 1, 2"."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def read_cells(path: Path) -> pd.DataFrame:
    """A CSV with its cells as the text they are."""
    import pandas as pd

    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")


def with_front(before: Mapping[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns ``before`` in front, each of one value; a column of its own of
    the same name becomes "<name> (column)". Cells stay what they are when such tables are stacked.
    """
    import pandas as pd

    front = pd.DataFrame(
        {name: [value] * len(table) for name, value in before.items()}, dtype=object
    )
    table = table.rename(columns={name: f"{name} (column)" for name in before})
    return pd.concat([front, table.reset_index(drop=True).astype(object)], axis=1)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all: columns of numbers to six digits, cells of mixed
    columns as they are."""
    write_whole(path, lambda draft: table.to_csv(draft, index=False, float_format="%.6g"))
