"""Publishing in pieces: what of the committed runs stays beside those that were run here.

A committed row tells in its column ``made`` what it was made by. It stays where its notebook was
not run here, and beside rows of other seeds that were made in the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bvlib.core.errors import BvError
from bvlib.files.digests import digest
from bvlib.report.tables import read_cells, with_front, write_csv

if TYPE_CHECKING:
    import pandas as pd

Pair = tuple[int, str]  # a seed and a notebook
PARTS = ("recipes", "parameters", "base", "data")  # of a result: what decides it, beside the seed


def made(result: Mapping[str, Any]) -> str:
    """Sixteen hex digits that tell by what a notebook's result was made, whatever its seed."""
    return digest(_parts(result))[:16]


def _parts(result: Mapping[str, Any], noted: bool = True) -> dict[str, Any]:
    """What decides a result; of its settings those that it asked for, where they are ``noted``."""
    parts = {part: result.get(part) for part in PARTS}
    given, read = parts["parameters"] or {}, result.get("read") if noted else None
    named = {k: v for k, v in given.items() if k != "seed" and (read is None or k in read)}
    return parts | {"parameters": named}


def check_alike(runs: Mapping[int, Iterable[Mapping[str, Any]]], mend: str) -> None:
    """BvError unless each notebook was run by the same recipes, settings, base and data for all
    seeds of ``runs``, {seed: results}."""
    first: dict[str, tuple[int, dict[str, Any]]] = {}
    noted = all("read" in result for results in runs.values() for result in results)
    for seed, results in runs.items():
        for result in results:
            name, parts = result["notebook"], _parts(result, noted)
            at, known = first.setdefault(name, (seed, parts))
            if differing := [part for part in PARTS if known[part] != parts[part]]:
                which = f"seed-{seed} and seed-{at} differ in the {differing[0]} of {name}"
                raise BvError(f"{which}: bring both up to date first, {mend}")


def pairs(rows: pd.DataFrame) -> set[Pair]:
    """The seeds and notebooks that rows are of."""
    return {(int(seed), name) for seed, name in zip(rows["seed"], rows["notebook"])}


def beside(old: pd.DataFrame, new: pd.DataFrame) -> set[Pair]:
    """The pairs of the committed rows ``old`` that stay beside the rows ``new``.

    A pair of ``new`` takes the place of the old one. Another seed of a notebook in ``new`` stays
    where it was made in the same way; a notebook that is not in ``new`` stays.
    """
    now = dict(zip(new["notebook"], new["made"]))
    was = dict(zip(zip(old["seed"].astype(int), old["notebook"]), old["made"]))
    alike = {pair for pair, how in was.items() if now.get(pair[1], how) == how}
    return alike - pairs(new)


def stack(
    folder: Path,
    drawn: Mapping[int, Iterable[Path]],
    stays: Collection[Pair],
    of: Mapping[str, str],
    ran: Collection[str],
) -> None:
    """Stack each table and each figure's data over seeds, as ``folder/<name>.csv``.

    ``drawn`` are the CSV files of each seed that was run here, with the cards beside them, ``ran``
    the notebooks that were. Tables that ``folder`` has of other notebooks stay, and of these ones
    the pairs in ``stays``; ``of`` names the notebook of each table. The seed is the first column,
    cells are as they stand. Columns that one seed lacks are left blank for it.
    """
    import pandas as pd

    tables: dict[str, list[tuple[int, pd.DataFrame]]] = {}
    for seed, paths in drawn.items():
        # of a figure and a table of one name: the table, which comes last
        for path in {path.name: path for path in paths}.values():
            found = with_front({"seed": seed}, read_cells(path))
            tables.setdefault(path.name, []).append((seed, found))
    for path in sorted(folder.glob("*.csv")):
        notebook = of.get(path.stem, "")
        if notebook and notebook not in ran:
            continue
        for seed, part in read_cells(path).groupby("seed", sort=False):
            if (int(seed), notebook) in stays:
                tables.setdefault(path.name, []).append((int(seed), part))
        path.unlink()
    for name, found in tables.items():
        parts = [part for _, part in sorted(found, key=lambda each: each[0])]
        write_csv(folder / name, pd.concat(parts))
