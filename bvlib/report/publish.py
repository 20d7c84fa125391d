"""Committing a run: what the reference runs drew goes to ``figures/<profile>/``, readable without
running anything.

Copied from the run of seed 0: figures (png, csv, json), tables (csv, json) and executed notebooks.
What a notebook drew that was not run stays as it was, and awaits redraw. From all seeds below 100:
the tidy rows ``seeds.csv``, each table and each figure's data stacked in ``by_seed/``, the report,
and rows and tables with what ``reference.SECONDS`` names, a second base or adversary, in a file and
a folder of its name. ``expected.json`` is what `bv report --check` compares later runs with. The
overview over all profiles is drawn anew, see :mod:`bvlib.report.overview`.
"""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bvlib.core.errors import BvError
from bvlib.files.safe import read_json, read_json_if, write_text
from bvlib.report import overview, reference, results, summary
from bvlib.report.tables import read_cells, with_front, write_csv
from bvlib.run import settings
from bvlib.run.notebooks import available, notebooks_folder, out_folder, shown
from bvlib.run.records import Say


def publish(
    profile: str, tolerance: float | None = None, replace: bool = False, say: Say = print
) -> Path:
    """Replace ``figures/<profile>/`` by the runs' results and return it; `say` gets a line for
    whatever is left out.

    MissingData when seed 0 was not run; BvError when a notebook of another seed was run by other
    recipes than that of seed 0, or when seeds that are committed were not run (unless `replace`).
    Nothing is written then.
    """
    folder, zero = reference.folder(profile), out_folder(profile, 0)
    content = settings.load(profile)
    seeds = [seed for seed in results.runs(profile) if seed < reference.REPORTING.stop]
    if 0 not in seeds:
        raise reference.missing_seed_zero(profile)
    kinds: list[tuple[dict[str, Any], list[int]]] = [({}, seeds)]  # parameters, their seeds
    for parameter, key in reference.SECONDS.items():
        if key in content:
            again = {parameter: content[key]}
            kinds.append((again, [s for s in results.runs(profile, again) if s in seeds]))
    mend = _way(profile, seeds) + "".join(
        f", then with{_words(p)}" for p, run in kinds if p and run
    )
    for parameters, run in kinds:
        others = [out_folder(profile, seed, parameters) for seed in run]
        _check_source([zero, *others], mend)
        lost = sorted(set(reference.committed(profile, parameters)) - set(run))
        if lost and not replace:
            way = f"{_way(profile, lost, parameters)}, or publish without them by --replace"
            raise BvError(f"committed seeds {_listed(lost)} were not run here: {way}")
    reference.write_expected(profile, tolerance)  # before the old tolerances go
    stays = _copy(zero, folder)
    for parameters, run in kinds:
        path = reference.rows_path(profile, parameters)
        if not run:
            path.unlink(missing_ok=True)
            shutil.rmtree(folder / path.stem, ignore_errors=True)
        else:
            rows = results.per_seed(profile, parameters)
            rows = rows[rows["seed"].isin(run)].assign(**parameters)
            write_csv(path, rows[[*parameters, *results.COLUMNS]])
            stacked = run if parameters or len(run) > 1 else []  # of one seed: they are in tables/
            target = folder / (path.stem if parameters else "by_seed")
            stack_tables(profile, stacked, target, parameters, set() if parameters else stays)
        if missing := [seed for seed in seeds if seed not in run]:
            left = f"{path.stem.replace('_', ' ')} left out for seeds {_listed(missing)}"
            say(f"{left}: {_way(profile, missing, parameters)}")
    own = summary.gather(profile, reference.counted(seeds))
    told = summary.as_markdown({**own, "reference": None})
    write_text(folder / "report.md", told)
    overview.write(say)
    return folder


def _way(profile: str, seeds: Sequence[int], parameters: Mapping[str, Any] | None = None) -> str:
    """The command that makes these runs."""
    return f"`bv run --profile {profile} --seeds {_listed(seeds)}{_words(parameters or {})}`"


def _words(parameters: Mapping[str, Any]) -> str:
    return "".join(f" -p {name}={value}" for name, value in parameters.items())


def _listed(seeds: Sequence[int]) -> str:
    return ",".join(map(str, seeds))


def stack_tables(
    profile: str,
    seeds: Sequence[int],
    folder: Path,
    parameters: Mapping[str, Any] | None = None,
    stays: Collection[str] = (),
) -> None:
    """Write each table and each figure's data of the runs with these parameters as
    ``folder/<name>.csv``, in place of what was there but the names in ``stays``.

    The seed is the first column, cells are as they stand. Columns that one seed lacks are left
    blank for it.
    """
    for old in folder.glob("*.csv"):
        if old.stem not in stays:
            old.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    tables: dict[str, list[pd.DataFrame]] = {}
    for seed in seeds:
        run = out_folder(profile, seed, parameters)
        drawn = [*_drawn(run / "figures"), *_drawn(run / "tables")]
        # of a figure and a table of one name: the table
        for path in {path.name: path for path in drawn if path.suffix == ".csv"}.values():
            table = with_front({"seed": seed}, read_cells(path))
            tables.setdefault(path.name, []).append(table)
    for name, found in tables.items():
        write_csv(folder / name, pd.concat(found))


def _drawn(folder: Path) -> list[Path]:
    """Figures or tables of a run, sorted, without those of notebooks that have not come to their
    end."""
    ended = {None, *(path.stem for path in folder.parent.glob("[0-9]*.json"))}
    by = {card.stem: read_json(card)["notebook"] for card in folder.glob("*.json")}
    return [path for path in sorted(folder.glob("*")) if by.get(path.stem) in ended]


def _copy(run: Path, folder: Path) -> set[str]:
    """Figures, tables and executed notebooks of one run, in place of what its notebooks gave
    before; returns what stays of others (names without ending)."""
    again, stays = {path.stem for path in run.glob("[0-9]*.json")}, set()
    made = {folder: _drawn(run / "figures"), folder / "tables": _drawn(run / "tables")}
    made[folder / "notebooks"] = sorted(run.glob("[0-9]*.ipynb"))
    for target, paths in made.items():
        target.mkdir(parents=True, exist_ok=True)
        by = {path.stem: read_json(path).get("notebook") for path in target.glob("*.json")}
        by |= {path.stem: path.stem for path in target.glob("*.ipynb")}
        others = {stem for stem, of in by.items() if of in available() and of not in again}
        stays |= others
        for old in target.glob("*.*"):
            if old.is_file() and by.get(old.stem) and old.stem not in others:
                old.unlink()
        for path in paths:
            shutil.copyfile(path, target / path.name)
            if path.suffix == ".ipynb":
                _tidy(target / path.name, run)
    return stays


def _check_source(folders: Sequence[Path], again: str) -> None:
    """BvError unless the notebooks of these runs were drawn by recipes of the same versions as
    those of the first. A run may hold fewer or more."""

    def sources(run: Path) -> dict[str, list[str]]:
        paths = run.glob("[0-9]*.json")
        return {path.stem: read_json(path).get("recipes", []) for path in paths}

    first = sources(folders[0])
    for run in folders[1:]:
        other = sources(run)
        both = sorted(first.keys() & other.keys())
        if differing := [name for name in both if first[name] != other[name]]:
            which = f"{shown(run)} and {folders[0].name} differ in the recipes of {differing[0]}"
            raise BvError(f"{which}: bring both up to date first, {again}")


def _take_prose(executed: Sequence[dict], now: Mapping[str, Any]) -> None:
    """Give an executed notebook the prose that it has now, where its code is what it was."""
    ran = [c for c in executed if "injected-parameters" not in c["metadata"].get("tags", [])]
    if [*map(_code, ran)] == [*map(_code, now["cells"])]:
        for cell, new in zip(ran, now["cells"]):
            cell["source"] = new["source"]


def _code(cell: Mapping[str, Any]) -> str | None:
    """The code of a cell, None for prose."""
    return "".join(cell["source"]) if cell["cell_type"] == "code" else None


def _tidy(path: Path, run: Path) -> None:
    """Take out of an executed notebook what names folders of the machine: what went to stderr, and
    the run's own folder."""
    content = read_json(path)
    _take_prose(content["cells"], read_json_if(notebooks_folder() / path.name) or content)
    for cell in content["cells"]:
        cell["outputs"] = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]
        if cell["cell_type"] != "code":
            del cell["outputs"]
    text = json.dumps(content, indent=1, ensure_ascii=False)
    text = text.replace(str(run), f"runs/{run.parent.name}/{run.name}")
    # links of `notebooks/` and of the run, from `figures/<profile>/notebooks/`
    text = text.replace("](../figures/", "](../../")
    text = text.replace(r"href=\"tables/", r"href=\"../tables/")
    path.write_text(text + "\n", encoding="utf-8")
