"""What a notebook says of itself, read without running it; and where notebooks and their runs
lie."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bvlib.core.errors import BvError, check_choice, unknown
from bvlib.core.registry import load_plugins
from bvlib.core.versions import recipe as version_of
from bvlib.files.digests import digest
from bvlib.files.safe import read_json
from bvlib.run import settings

SET_BY_RUNNER = ("profile", "seed", "out")
FOLDERS = tuple(
    f"BVLIB_{name}" for name in ("NOTEBOOKS", "RUNS", "STORE", "DATA", "PROFILES", "CLIP")
)
TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool, "list": list, "dict": dict}


# Where things lie


def notebooks_folder() -> Path:
    """The folder of notebooks: BVLIB_NOTEBOOKS, or `notebooks/` here, or the one beside the
    package."""
    if named := os.environ.get("BVLIB_NOTEBOOKS"):
        return Path(named).resolve()
    here = Path.cwd() / "notebooks"
    return here if here.is_dir() else Path(__file__).resolve().parents[2] / "notebooks"


def root_folder() -> Path:
    """The folder above the notebooks: notebooks run there, and `runs/` and `figures/` lie there."""
    return notebooks_folder().parent


def runs_folder() -> Path:
    """Where runs are written: BVLIB_RUNS, or `runs/` beside the notebooks."""
    return Path(os.environ.get("BVLIB_RUNS") or root_folder() / "runs").resolve()


def store_folder() -> Path:
    """Where notebooks keep what they make: the folder that BVLIB_STORE names, or `store/` beside
    the notebooks."""
    return Path(os.environ.get("BVLIB_STORE") or root_folder() / "store")


def settle_folders() -> None:
    """Make the folders that the environment names absolute, as runs work in other folders than the
    one they are called from."""
    for name in FOLDERS:
        if named := os.environ.get(name):
            os.environ[name] = str(Path(named).expanduser().absolute())
    if files := plugin_files():
        os.environ["BVLIB_PLUGINS"] = os.pathsep.join(str(p.expanduser().absolute()) for p in files)


def out_folder(profile: str, seed: int, parameters: Mapping[str, Any] | None = None) -> Path:
    """The output folder of one run; parameters other than the defaults add `+<8 hex digits>`."""
    suffix = f"+{digest(dict(parameters))[:8]}" if parameters else ""
    return runs_folder() / profile / f"seed-{seed}{suffix}"


def plugin_files() -> list[Path]:
    """The files of BVLIB_PLUGINS (or `bv run --plugin`), which register a researcher's own
    methods."""
    return [Path(name) for name in os.environ.get("BVLIB_PLUGINS", "").split(os.pathsep) if name]


def shown(path: Path, base: Path | None = None) -> str:
    """A path for readers: relative to `base` (the current folder by default) if it lies below."""
    base = base or Path.cwd()
    return str(path.relative_to(base) if path.is_relative_to(base) else path)


# What a notebook says of itself


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: `name: type = default  # help`."""

    name: str
    type: str
    default: Any
    help: str

    def take(self, value: Any) -> Any:
        """`value` as this parameter's type (text with commas for a list). BvError if it does not
        fit, or is not what the setting of that name takes."""
        fitted = self._fitted(value)
        settings.check(self.name, fitted)
        return fitted

    def _fitted(self, value: Any) -> Any:
        kind = self.type.partition("[")[0]  # list[str] is a list
        if kind not in TYPES or (value is None and self.default is None):
            return value
        if kind == "list" and isinstance(value, str):
            plain = value.strip().removeprefix("[").removesuffix("]")  # as papermill hands it on
            value = [item.strip(" '\"") for item in plain.split(",") if item.strip()]
        if kind == "list" and isinstance(value, (int, float, tuple)):
            value = list(value) if isinstance(value, tuple) else [value]
        if kind == "list" and value == [] != self.default:
            mend = "give it an entry or leave it out"
            raise BvError(f"parameter {self.name} is an empty list: {mend}")
        truth = isinstance(value, bool)  # True is no number here
        if kind == "str" and isinstance(value, (int, float)) and not truth:
            return str(value)
        if truth != (kind == "bool") or not isinstance(value, TYPES[kind]):
            raise BvError(f"parameter {self.name} wants {self.type}, got {value!r}")
        return value


@dataclass(frozen=True)
class Notebook:
    """A notebook's name, title, code cells and parameters, read from its file without running
    anything.

    A ``long`` one (metadata ``{"bvlib": {"long": true}}``) runs only when it is named: it does not
    fit the default run.
    """

    name: str
    path: Path
    title: str
    code: tuple[str, ...]
    parameters: dict[str, Parameter]
    long: bool = False

    @classmethod
    def read(cls, path: Path) -> Notebook:
        """Read a notebook file. BvError if it is no notebook or its parameters cell is not
        literals."""
        cells, own = read_cells(path), read_json(path).get("metadata", {}).get("bvlib", {})
        prose = "\n".join(cell_text(cell) for cell in cells if cell["cell_type"] == "markdown")
        title = re.search(r"(?m)^# +(.*)", prose)
        code = tuple(cell_text(cell) for cell in cells if cell["cell_type"] == "code")
        declared = [cell_text(cell) for cell in cells if _declares(cell)]
        parameters = _parameters(path.stem, declared[0]) if declared else {}
        name = title[1].strip() if title else ""
        return cls(path.stem, path, name, code, parameters, bool(own.get("long")))

    @property
    def recipe(self) -> str:
        """What the cards of its figures name: "notebook:01_badmerging/1"."""
        return version_of(f"notebook:{self.name}")

    def takes(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the values that its parameters cell declares, as it takes them."""
        own = {name: each for name, each in self.parameters.items() if name in given}
        return {name: each.take(given[name]) for name, each in own.items()}


def available() -> list[str]:
    """The names of all notebooks, in the order in which they run."""
    found = sorted(path.stem for path in notebooks_folder().glob("[!.]*.ipynb"))
    return [name for name in found if not re.search(r"^Untitled|-Copy\d+$", name)]


def every() -> list[Notebook]:
    """All notebooks, in the order in which they run."""
    return [Notebook.read(notebooks_folder() / f"{name}.ipynb") for name in available()]


def find(names: Sequence[str] | None) -> list[Notebook]:
    """The notebooks of these names in order (`01`, `01_badmerging`, `badmerging`), or all that are
    not long.

    BvError for an unknown name, with the nearest known one.
    """
    known = available()
    if not known:
        raise BvError(
            f"no notebooks in {shown(notebooks_folder())}: run from the repository, "
            "or name the folder in BVLIB_NOTEBOOKS"
        )
    if not names:
        return [each for each in every() if not each.long]
    chosen = set()
    for name in names:
        plain = Path(name).name.removesuffix(".ipynb")
        hits = [each for each in known if f"_{plain}_" in f"_{each}_"]
        hits = [each for each in hits if each.startswith(plain) or each.endswith(plain)]
        if len(hits) != 1:
            raise unknown("notebook", name, known)
        chosen.add(hits[0])
    return [Notebook.read(notebooks_folder() / f"{name}.ipynb") for name in sorted(chosen)]


def check_parameters(
    notebooks: Sequence[Notebook], given: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """{notebook: the parameters that go to it}. BvError for a name that none of the notebooks
    knows."""
    if given:
        load_plugins(plugin_files())  # what they register may be named
    known = {name: p for notebook in notebooks for name, p in notebook.parameters.items()}
    for name in given:
        if name in SET_BY_RUNNER:
            way = "set BVLIB_RUNS" if name == "out" else f"give --{name}"
            raise BvError(f"{name} is no -p parameter here: {way}")
        check_choice("parameter", name, [n for n in known if n not in SET_BY_RUNNER])
    return {notebook.name: notebook.takes(given) for notebook in notebooks}


def parameters_of(notebook: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """{parameter: its value in `namespace`} of all that a notebook's parameters cell declares,
    checked as `bv run` checks them.

    BvError for a parameter that `namespace` lacks (the cell was not run) and for a value that does
    not fit.
    """
    load_plugins(plugin_files())  # what they register may be named
    [own] = find([notebook])
    for name in own.parameters:
        if name not in namespace:
            raise BvError(f"notebook {own.name}: run its parameters cell first, {name} is not set")
    return own.takes(namespace)


def write_parameters() -> list[str]:
    """Write the lines of all settings in the parameters cells anew; names of what changed."""
    changed = []
    for notebook in every():
        before = notebook.path.read_text(encoding="utf-8")
        content = json.loads(before)
        for cell in content["cells"]:
            if _declares(cell):
                lines = "\n".join(map(settings.derived, cell_text(cell).splitlines()))
                cell["source"] = lines.splitlines(keepends=True)
        after = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        if after != before:
            notebook.path.write_text(after, encoding="utf-8")
            changed.append(notebook.name)
    return changed


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook file. BvError if it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise BvError(f"{path.name} is no notebook ({error})") from None


def _declares(cell: Mapping[str, Any]) -> bool:
    """Whether a cell is a parameters cell."""
    return "parameters" in cell["metadata"].get("tags", [])


def cell_text(cell: Mapping[str, Any]) -> str:
    """The source of a cell as one text."""
    return "".join(cell["source"])


def _parameters(notebook: str, source: str) -> dict[str, Parameter]:
    lines, found = source.splitlines(), {}
    try:
        for node in ast.parse(source).body:
            if not (isinstance(node, ast.AnnAssign) and node.value):
                raise ValueError
            name, kind = ast.unparse(node.target), ast.unparse(node.annotation)
            after = lines[(node.end_lineno or 1) - 1][node.end_col_offset or 0 :]
            default, comment = ast.literal_eval(node.value), after.partition("#")[2].strip()
            found[name] = Parameter(name, kind, default, comment)
    except (SyntaxError, ValueError):
        raise BvError(
            f"notebook {notebook}: its parameters cell must hold literals only, "
            "one `name: type = value  # help` a line"
        ) from None
    return found


if __name__ == "__main__":
    print("\n".join(write_parameters()) or "every line is up to date")
