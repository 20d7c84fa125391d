"""Committing a run: what the reference run drew goes to ``figures/<profile>/``, readable without running anything.

Copied from the run of seed 0: figures (png, csv, json), tables (csv, json) and executed notebooks; from all seeds the tidy
rows ``seeds.csv`` and the report; and ``expected.json``, which `bv report --check` compares later runs with.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from . import report
from .errors import MissingData
from .files import write_whole
from .notebook import out_folder, root_folder


def publish(profile: str, tolerance: float | None = None) -> Path:
    """Replace ``figures/<profile>/`` by the runs' results and return it. MissingData when seed 0 was not run."""
    run, folder = out_folder(profile, 0), root_folder() / "figures" / profile
    if not report.results(profile, 0):
        raise MissingData(f"no run of profile {profile} with seed 0: make it with `bv run --profile {profile}`")
    report.write_expected(profile, tolerance)  # before the old tolerances go
    for part, pattern in (("figures", "*"), ("tables", "*"), ("notebooks", None)):
        target = folder / ("" if part == "figures" else part)
        target.mkdir(parents=True, exist_ok=True)
        for old in target.glob("*.*"):
            if old.is_file() and old.name != "expected.json":
                old.unlink()
        for path in sorted((run / part).glob(pattern) if pattern else run.glob("[0-9]*.ipynb")):
            shutil.copyfile(path, target / path.name)
            if path.suffix == ".ipynb":
                _without_warnings(target / path.name)
    write_whole(folder / "seeds.csv", lambda draft: report.per_seed(profile).to_csv(draft, index=False, float_format="%.6g"))
    write_whole(folder / "report.md", lambda draft: draft.write_text(report.as_markdown(report.gather(profile)), encoding="utf-8"))
    return folder


def _without_warnings(path: Path) -> None:
    """Take out of an executed notebook what went to stderr: warnings there name folders of the machine."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        cell["outputs"] = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]
        if cell["cell_type"] != "code":
            del cell["outputs"]
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
