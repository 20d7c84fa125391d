"""Cases from the field: parameters, sweeps, folders that the environment names."""

import json
import math
import os
from pathlib import Path

from field import call, cli

from bvlib.run import notebooks
from bvlib.run.points import read_sweep

GIVEN = {
    "coefficient=1e30": "S8",  # ZipIt#11
    "coefficient=nan": "S8",
    "coefficients='1e-1;3e-1'": "crash",
    "coefficients=[0.1,nan]": "new",
    "coefficients=[]": "new",
    "attack=badnet": "M",
    "merging=tie": "M",
    "adversary=Digits": "new",
    "tasks=[digits,digits]": "new",
    "tasks=": "new",
    "target_class=1.0": "S9",
    "scale=1": "M",
}
ALONE = {  # of plain papermill (papermill#396): notebook, parameter, value
    "S9": [("00", "show_all", "false"), ("01", "seed", 1.7), ("01", "coefficient", "0.5")],
    "crash": [("01", "coefficient", math.inf), ("01", "target_class", 1.0)],
    "M": [("01", "tasks", "[digits,shapes]")],
    "new": [("01", "tasks", "['digits']"), ("01", "seed", -1), ("00", "show_all", 0)],
}


def parameters() -> None:
    """What `bv run -p` and papermill hand to a notebook."""
    for given, case in GIVEN.items():
        cli(case, "run", "01", "--profile", "smoke", "-p", given)
    cli("crash", "run", "06", "--profile", "smoke", "-p", "attacks=badnets,mine")
    cli("crash", "run", "06", "--profile", "smoke", "-p", "methods=ties,mine")
    usual = {
        name: {each: of.default for each, of in notebooks.find([name])[0].parameters.items()}
        for name in ("00", "01")
    }
    for case, several in ALONE.items():
        for notebook, name, value in several:
            given = {**usual[notebook], name: value}
            call(
                case,
                f"papermill alone: {name} = {value!r} (papermill#396)",
                lambda n=notebook, g=given, name=name: notebooks.parameters_of(n, g)[name],
            )


def sweeps_and_folders() -> None:
    """Sweeps, notebooks beside the known ones, relative folders."""
    for case, tried, text in (
        ("M", "1e-1 in a sweep (pyyaml#173)", "profile: smoke\ngrid: {coefficient: [1e-1, .5e0]}"),
        ("new", "yes in place of a number in a sweep", "grid: {coefficient: [yes]}"),
        ("new", "a tab in a sweep", "\tgrid: {coefficient: [1]}"),
    ):
        Path("sweep.yaml").write_text(text)
        call(case, tried, lambda: read_sweep(Path("sweep.yaml"), ["01"]).points)
    Path("sweep.yaml").write_bytes("grid: {coefficient: [0.1]}  # für".encode("cp1252"))
    call("crash", "a sweep in cp1252", lambda: read_sweep(Path("sweep.yaml"), ["01"]))
    for name in ("STORE", "RUNS", "DATA", "PROFILES"):
        for named in (f"my{name.lower()}/", f"~/my{name.lower()}"):
            os.environ[f"BVLIB_{name}"] = named
            notebooks.settle_folders()
            seen = os.environ.pop(f"BVLIB_{name}").replace(str(Path.home()), "HOME")
            call("M2", f"BVLIB_{name}={named} (papermill#316)", lambda seen=seen: seen)
    os.environ["BVLIB_STORE"] = "mystore"
    cli("M2", "export", "out", tried="BVLIB_STORE=mystore bv export out")
    os.environ["BVLIB_RUNS"] = "file"
    Path("file").touch()
    cli("new", "run", "00", "--profile", "smoke", tried="BVLIB_RUNS is a file")
    folder = Path("notebooks")
    folder.mkdir()
    cell = {"cell_type": "markdown", "metadata": {}, "source": "# One"}
    for name in ("00_start", "00_start-Copy1"):
        (folder / f"{name}.ipynb").write_text(json.dumps({"cells": [cell], "metadata": {}}))
    (folder / "Untitled.ipynb").write_text("{")
    os.environ["BVLIB_NOTEBOOKS"] = str(folder)
    tried = "bv run 00 beside 00_start-Copy1.ipynb and a half-typed Untitled.ipynb"
    call("M", tried, lambda: [each.name for each in notebooks.find(["00"])])
