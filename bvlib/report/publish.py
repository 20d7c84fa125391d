"""Committing a run: what the reference runs drew goes to ``figures/<profile>/``, readable without
running anything.

Copied from the run of seed 0: figures (png, csv, json), tables (csv, json) and executed notebooks.
What a notebook drew that was not run stays as it was, and may await redraw. From all seeds below
100: the tidy rows ``seeds.csv``, each table and each figure's data stacked in ``by_seed/``, the
report, and rows and tables with what ``reference.SECONDS`` names, a second base or adversary, in a
file and a folder of its name. ``expected.json`` is what `bv report --check` compares later runs
with. The overview over all profiles is drawn anew, see :mod:`bvlib.report.overview`.
"""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bvlib.core.errors import BvError
from bvlib.files.safe import read_json, read_json_if, write_text
from bvlib.report import overview, pieces, reference, results, summary
from bvlib.report.tables import write_csv
from bvlib.run import settings
from bvlib.run.notebooks import available, notebooks_folder, out_folder
from bvlib.run.records import Say


def publish(
    profile: str, tolerance: float | None = None, replace: bool = False, say: Say = print
) -> Path:
    """Put the runs' results into ``figures/<profile>/`` and return it; `say` gets a line for
    whatever is left out.

    Committed seeds that were not run here stay where they were made in the same way, see
    :func:`bvlib.report.pieces.beside`, so that a study may be run and published in pieces.
    MissingData when a notebook has no seed 0, here or committed; BvError when seeds of a notebook
    were run in different ways, or when committed ones could not stay (unless `replace`). Nothing is
    written then.
    """
    folder, stale = reference.folder(profile), reference.awaiting(profile)
    content = settings.load(profile)
    seconds = [{p: content[key]} for p, key in reference.SECONDS.items() if key in content]
    first = _Kind.of(profile, {}, stale, replace)
    seeds = {seed for seed, _ in first.all}
    made = [first, *(_Kind.of(profile, p, stale, replace, seeds) for p in seconds)]
    if lacking := {name for _, name in first.new} - {name for seed, name in first.all if not seed}:
        raise reference.missing_seed_zero(profile, sorted(lacking))
    if not first.all:
        raise reference.missing_seed_zero(profile)
    if any(seed == 0 for seed, _ in first.new):
        _copy(out_folder(profile, 0), folder)
    of = {path.stem: read_json(path).get("notebook") for path in folder.glob("**/*.json")}
    for kind in made:
        kind.write(folder, of)
        if gone := sorted({name for _, name in kind.old - kind.all} & set(stale)):
            say(f"rows of {', '.join(gone)} left out: they await being drawn again")
        run = {seed for seed, _ in kind.all}
        if missing := sorted(seeds - run):
            left = f"{kind.path.stem.replace('_', ' ')} left out for seeds {_listed(missing)}"
            say(f"{left}: {_way(profile, missing, kind.parameters)}")
    reference.write_expected(profile, tolerance)
    write_text(folder / "report.md", summary.as_markdown(summary.gather(profile, own=False)))
    overview.write(say)
    return folder


@dataclass
class _Kind:
    """The runs of a profile with its default parameters, or with what ``reference.SECONDS`` names:
    the committed pairs of seed and notebook, those that were run here, those that stay."""

    profile: str
    parameters: Mapping[str, Any]
    rows: pd.DataFrame  # old and new, as they will be committed
    old: set[pieces.Pair]
    new: set[pieces.Pair]
    stays: set[pieces.Pair]

    @classmethod
    def of(
        cls,
        profile: str,
        parameters: Mapping[str, Any],
        stale: Collection[str],
        replace: bool,
        only: Collection[int] = range(reference.REPORTING.stop),
    ) -> "_Kind":
        """Of the seeds in ``only``. BvError where some were run in different ways, or would be lost
        without `replace`."""
        found = results.runs(profile, parameters)
        found = {seed: run for seed, run in found.items() if seed in only}
        pieces.check_alike(found, _way(profile, list(found), parameters))
        how = {(seed, run["notebook"]): pieces.made(run) for seed in found for run in found[seed]}
        new = results.per_seed(profile, parameters)
        new = new[new["seed"].isin(found)].assign(**parameters)
        new["made"] = [how[pair] for pair in zip(new["seed"], new["notebook"])]
        new["value"] = ["" if pd.isna(each) else f"{each:.6g}" for each in new["value"]]
        path = reference.rows_path(profile, parameters)
        old = reference.rows(path, parameters)
        stays = pieces.beside(old, new, stale)
        kept = [pair in stays for pair in zip(old["seed"].astype(int), old["notebook"])]
        lost = pieces.pairs(old) - stays - set(how)
        lost = {(seed, name) for seed, name in lost if name in {ran for _, ran in how}}
        if lost and not replace:
            seeds, names = sorted({s for s, _ in lost}), sorted({name for _, name in lost})
            way = f"{_way(profile, seeds, parameters)}, or publish without them by --replace"
            which = f"committed seeds {_listed(seeds)} of {', '.join(names)}"
            raise BvError(f"{which} were made in another way: {way}")
        both = pd.concat([old[kept], new]).astype({"seed": int})
        both = both.sort_values(["seed", "notebook"], kind="stable")
        return cls(profile, parameters, both, pieces.pairs(old), set(how), stays)

    @property
    def all(self) -> set[pieces.Pair]:
        """What will be committed."""
        return self.new | self.stays

    @property
    def path(self) -> Path:
        """The file of the rows."""
        return reference.rows_path(self.profile, self.parameters)

    def write(self, folder: Path, of: Mapping[str, str]) -> None:
        """Write the rows and the tables by seed."""
        target = folder / (self.path.stem if self.parameters else "by_seed")
        if not self.all:
            self.path.unlink(missing_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            return
        write_csv(self.path, self.rows[[*self.parameters, *reference.COLUMNS]])
        runs = {seed: out_folder(self.profile, seed, self.parameters) for seed, _ in self.new}
        drawn = {
            seed: [*_drawn(run / "figures"), *_drawn(run / "tables")] for seed, run in runs.items()
        }
        drawn = {seed: [p for p in found if p.suffix == ".csv"] for seed, found in drawn.items()}
        pieces.stack(target, drawn, self.stays, of)


def _way(profile: str, seeds: Sequence[int], parameters: Mapping[str, Any] | None = None) -> str:
    """The command that makes these runs."""
    return f"`bv run --profile {profile} --seeds {_listed(seeds)}{_words(parameters or {})}`"


def _words(parameters: Mapping[str, Any]) -> str:
    return "".join(f" -p {name}={value}" for name, value in parameters.items())


def _listed(seeds: Sequence[int]) -> str:
    return ",".join(map(str, seeds))


def _drawn(folder: Path) -> list[Path]:
    """Figures or tables of a run, sorted, without those of notebooks that have not come to their
    end."""
    ended = {None, *(path.stem for path in folder.parent.glob("[0-9]*.json"))}
    by = {card.stem: read_json(card)["notebook"] for card in folder.glob("*.json")}
    return [path for path in sorted(folder.glob("*")) if by.get(path.stem) in ended]


def _copy(run: Path, folder: Path) -> None:
    """Figures, tables and executed notebooks of one run, in place of what its notebooks gave
    before."""
    again = {path.stem for path in run.glob("[0-9]*.json")}
    made = {folder: _drawn(run / "figures"), folder / "tables": _drawn(run / "tables")}
    made[folder / "notebooks"] = sorted(run.glob("[0-9]*.ipynb"))
    for target, paths in made.items():
        target.mkdir(parents=True, exist_ok=True)
        by = {path.stem: read_json(path).get("notebook") for path in target.glob("*.json")}
        by |= {path.stem: path.stem for path in target.glob("*.ipynb")}
        others = {stem for stem, of in by.items() if of in available() and of not in again}
        for old in target.glob("*.*"):
            if old.is_file() and by.get(old.stem) and old.stem not in others:
                old.unlink()
        for path in paths:
            shutil.copyfile(path, target / path.name)
            if path.suffix == ".ipynb":
                _tidy(target / path.name, run)


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
