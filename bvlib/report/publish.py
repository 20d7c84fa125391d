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
from bvlib.report import expected, overview, pieces, reference, results, summary
from bvlib.report.tables import write_csv
from bvlib.run import settings
from bvlib.run.notebooks import available, notebooks_folder, out_folder
from bvlib.run.records import Say


def publish(
    profile: str, tolerance: float | None = None, replace: bool = False, say: Say = print
) -> Path:
    """Put the runs' results into ``figures/<profile>/`` and return it; `say` gets a line for
    whatever is left out, as are runs that have been overtaken by recipes or settings.

    What is committed and was not run here stays, but for other seeds of the same notebook that were
    made in another way, see :func:`bvlib.report.pieces.beside`. So a study may be run and published
    in pieces. MissingData when a notebook has no seed 0, here or committed; BvError when seeds of a
    notebook were run in different ways, or when committed ones could not stay (unless `replace`).
    Nothing is written then.
    """
    folder, content = reference.folder(profile), settings.load(profile)
    seconds = [{p: content[key]} for p, key in reference.SECONDS.items() if key in content]
    first = _Kind.of(profile, {}, replace, say)
    seeds = {seed for seed, _ in first.all}
    if lacking := {name for _, name in first.new} - {name for seed, name in first.all if not seed}:
        raise expected.missing_seed_zero(profile, sorted(lacking))
    if not first.all:
        raise expected.missing_seed_zero(profile)
    kinds = [first, *(_Kind.of(profile, p, replace, say, seeds) for p in seconds)]
    if any(seed == 0 for seed, _ in first.new):
        _copy(out_folder(profile, 0), {name for seed, name in first.new if not seed}, folder)
    of = {path.stem: read_json(path).get("notebook") for path in folder.glob("**/*.json")}
    for kind in kinds:
        kind.write(folder, of, say)
        if missing := sorted(seeds - {seed for seed, _ in kind.all}):
            left = f"{kind.path.stem.replace('_', ' ')} left out for seeds {_listed(missing)}"
            say(f"{left}: {_way(profile, missing, kind.parameters)}")
    expected.write_expected(profile, tolerance)
    write_text(folder / "report.md", summary.as_markdown(summary.gather(profile, own=False)))
    overview.write(say)
    return folder


@dataclass
class _Kind:
    """The runs of a profile with its default parameters, or with what ``reference.SECONDS`` names:
    the pairs of seed and notebook that were run here, and the committed ones that stay."""

    profile: str
    parameters: Mapping[str, Any]
    rows: pd.DataFrame  # old and new, as they will be committed
    new: set[pieces.Pair]
    stays: set[pieces.Pair]

    @classmethod
    def of(
        cls,
        profile: str,
        parameters: Mapping[str, Any],
        replace: bool,
        say: Say,
        only: Collection[int] = range(reference.REPORTING.stop),
    ) -> "_Kind":
        """Of the seeds in ``only``. BvError where some were run in different ways, or would be lost
        without `replace`."""
        found = _up_to_date(profile, parameters, only, say)
        pieces.check_alike(found, _way(profile, list(found), parameters))
        how = {(seed, run["notebook"]): pieces.made(run) for seed in found for run in found[seed]}
        new = results.rows_of(found).assign(**parameters)
        new["made"] = [how[pair] for pair in zip(new["seed"], new["notebook"])]
        new["value"] = ["" if pd.isna(each) else f"{each:.6g}" for each in new["value"]]
        old = reference.rows(reference.rows_path(profile, parameters), parameters)
        stays = {pair for pair in pieces.beside(old, new) if pair[0] in only}
        kept = [pair in stays for pair in zip(old["seed"].astype(int), old["notebook"])]
        lost = pieces.pairs(old) - stays - set(how)
        if lost and not replace:
            seeds, names = sorted({s for s, _ in lost}), sorted({name for _, name in lost})
            way = f"{_way(profile, seeds, parameters, names)}, or publish without them by --replace"
            which = f"committed seeds {_listed(seeds)} of {', '.join(names)}"
            raise BvError(f"{which} were made in another way: {way}")
        both = pd.concat([old[kept], new]).astype({"seed": int})
        both = both.sort_values(["seed", "notebook"], kind="stable")
        return cls(profile, parameters, both, set(how), stays)

    @property
    def all(self) -> set[pieces.Pair]:
        """What will be committed."""
        return self.new | self.stays

    @property
    def path(self) -> Path:
        """The file of the rows."""
        return reference.rows_path(self.profile, self.parameters)

    def write(self, folder: Path, of: Mapping[str, str], say: Say) -> None:
        """Write the rows and the tables by seed, if there are new ones; `say` gets a line when
        those of a former second base or adversary go."""
        if not self.new:
            return
        target = folder / (self.path.stem if self.parameters else "by_seed")
        known = reference.rows(self.path)
        for name, value in self.parameters.items():
            if former := sorted({*known.get(name, ())} - {value}):
                say(f"{self.path.stem} of {', '.join(former)} left out: it is {value} now")
                shutil.rmtree(target, ignore_errors=True)
        write_csv(self.path, self.rows[[*self.parameters, *reference.COLUMNS]])
        drawn: dict[int, list[Path]] = {}
        for seed in {seed for seed, _ in self.new}:
            run = out_folder(self.profile, seed, self.parameters)
            ran = {name for at, name in self.new if at == seed}
            both = [*_drawn(run / "figures", ran), *_drawn(run / "tables", ran)]
            drawn[seed] = [path for path in both if path.suffix == ".csv"]
        pieces.stack(target, drawn, self.stays, of, {name for _, name in self.new})


def _up_to_date(
    profile: str, parameters: Mapping[str, Any], only: Collection[int], say: Say
) -> dict[int, list[dict[str, Any]]]:
    """{seed: results} of the runs of these seeds that are what the recipes and settings of now
    would give; `say` gets a line for each that is not."""
    now, found = {**settings.load(profile), **parameters}, {}
    for seed, runs in results.runs(profile, parameters).items():
        for run in runs if seed in only else ():
            if reasons := reference.moved(run, now):
                where = f"{run['notebook']} of seed {seed} left out"
                say(f"{where}: since it was run, {', '.join(reasons)}")
            else:
                found.setdefault(seed, []).append(run)
    return found


def _way(
    profile: str,
    seeds: Sequence[int],
    parameters: Mapping[str, Any] | None = None,
    names: Sequence[str] = (),
) -> str:
    """The command that makes these runs."""
    which = " ".join(["bv run", *(name[:2] for name in names)])
    return f"`{which} --profile {profile} --seeds {_listed(seeds)}{_words(parameters or {})}`"


def _words(parameters: Mapping[str, Any]) -> str:
    return "".join(f" -p {name}={value}" for name, value in parameters.items())


def _listed(seeds: Sequence[int]) -> str:
    return ",".join(map(str, seeds))


def _drawn(folder: Path, ran: Collection[str]) -> list[Path]:
    """Figures or tables of a run, sorted: those of the notebooks ``ran``."""
    by = {card.stem: read_json(card)["notebook"] for card in folder.glob("*.json")}
    return [path for path in sorted(folder.glob("*")) if by.get(path.stem) in ran]


def _copy(run: Path, again: Collection[str], folder: Path) -> None:
    """Figures, tables and executed notebooks of one run, of the notebooks ``again``, in place of
    what these gave before."""
    made = {
        folder: _drawn(run / "figures", again),
        folder / "tables": _drawn(run / "tables", again),
    }
    made[folder / "notebooks"] = [run / f"{name}.ipynb" for name in sorted(again)]
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
