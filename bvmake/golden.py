"""Golden values: what the smoke profile gives, committed, so that a change of the code shows at
once whether results moved.

For each of :data:`STUDIES` a run of its notebooks on one thread is kept as
``<folder>/<study>.json``: a digest and a sketch of every artefact, a digest of every table. On the
kind of processor and with the versions that made them, digests must be equal; elsewhere artefacts
must be near (:data:`WEIGHTS`).

A result whose recipe version was raised is meant to change: only then may its golden value be
written anew.
"""

import csv
import itertools
import json
import os
import platform
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bvlib.core.errors import BvError, MissingData, check_choice
from bvlib.core.rng import numpy_rng
from bvlib.files.digests import digest
from bvlib.files.safe import file_sha256, read_json, write_text
from bvlib.files.weights import card_of, read_tensors
from bvlib.files.weights import digest as content
from bvlib.run import records, workflow
from bvlib.run.notebooks import available, find, root_folder, shown
from bvlib.worlds import bases

# A profile, and its default notebooks or the long ones; smoke32 where the real images are
STUDIES = ("smoke", "smoke-long", "smoke32", "smoke32-long")
PARTS = {"artefacts": "sketch", "tables": "rows"}  # and what nearness is told from
WIDTH = 32  # numbers in a sketch
# Elsewhere: how far a training may end from the golden one, as a share of how far it went (L2).
# Measured on smoke: other instructions of the processor (SSE in place of AVX2) 0.0009 at the most,
# 5 % more learning rate 0.041 at the least (0.005 for the adapters of Surgery).
WEIGHTS = 0.005
# Elsewhere: how far a number of a table may lie, in points (two of the 115 images of a rate) or as
# a share of its size, and how many numbers of a table may lie further, for a strength that is
# chosen on dev images may be the next one there. Measured as above: none of 14,789 numbers did.
POINTS, RELATIVE, FREE = 1.75, 0.02, 0.02


# What is compared


def processor() -> str:
    """The kind of processor, as far as it decides bits: vendor, family and model, and the
    instructions that torch uses."""
    import torch

    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        said = dict(map(str.strip, line.split(":", 1)) for line in first if ":" in line)
        kind = " ".join(said[name] for name in ("vendor_id", "cpu family", "model"))
    except (OSError, KeyError):
        kind = platform.processor() or platform.machine()
    return f"{kind} {torch.backends.cpu.get_cpu_capability()}"


def sketch(tensors: Mapping[str, Any]) -> np.ndarray:
    """:data:`WIDTH` sums over all entries with signs drawn by name: linear, and as far apart as the
    tensors are (L2, on average).

    So the distance of two state dicts is told from numbers that fit into a line, without the
    tensors (a count sketch).
    """
    total = np.zeros(WIDTH)
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().double().flatten().numpy()
        signs = 2.0 * numpy_rng(0, "sketch", name).integers(0, 2, len(values)) - 1
        total += np.append(values * signs, np.zeros(-len(values) % WIDTH)).reshape(-1, WIDTH).sum(0)
    return total


def collect(out: Path) -> dict[str, Any]:
    """{environment, base, artefacts, tables} of a finished run folder (``runs/smoke/seed-0``), in
    order of first use.

    artefacts: [{label, notebook, recipes, digest, scale, sketch}], where the label is kind, name
    and a hash of the arguments that are no digests; scale is the length (L2) of what was learnt.
    tables: [{label, notebook, recipes, digest, rows}]. MissingData when nothing was run there.
    """
    runs = [read_json(path) for path in sorted(out.glob("[0-9]*.json"))]
    if not runs:
        raise MissingData(f"no finished run in {shown(out)}: run the notebooks first")
    artefacts: dict[str, dict[str, Any]] = {}
    tables: list[dict[str, Any]] = []
    labels: Counter[str] = Counter()
    base = runs[0]["parameters"]["base"]
    start = sketch(bases.load(base).theta) if base in bases.shipped() else None
    for run in runs:
        for item in run["artefacts"]:
            if item["key"] not in artefacts:
                label, told = _artefact(item, start)
                labels[label] += 1
                named = {"label": f"{label}#{labels[label]}", "notebook": run["notebook"]}
                artefacts[item["key"]] = named | told
        for path in run["outputs"]:
            if path.endswith(".csv"):
                named = {"label": path, "notebook": run["notebook"]}
                tables.append(named | _table(out / path, run.get("recipes", [])))
    where = {**runs[0]["environment"], "processor": processor()}
    return {"environment": where, "artefacts": list(artefacts.values()), "tables": tables}


def _table(path: Path, recipes: list[str]) -> dict[str, Any]:
    """Recipes, digest and cells of a CSV, numbers as numbers."""

    def cell(text: str) -> float | str:
        try:
            return float(text)
        except ValueError:
            return text

    with open(path, newline="", encoding="utf-8") as file:
        rows = [list(map(cell, row)) for row in csv.reader(file)]
    return {"recipes": recipes, "digest": file_sha256(path)[:16], "rows": rows}


def _artefact(item: Mapping[str, Any], base: np.ndarray | None) -> tuple[str, dict[str, Any]]:
    """Label of one artefact, its recipes, digest, and (of tensors) sketch and scale; ``base`` is
    the sketch of the base's image tower, None for one that no file of the package holds."""
    path = root_folder() / item["path"]
    card = read_json(card_of(path))
    plain = {name: value for name, value in card["args"].items() if not _is_digest(value)}
    label = f"{item['kind']}/{item['name']}/{digest(plain)[:8]}"
    told = {"recipes": card.get("recipes", [])}
    if path.suffix != ".safetensors":
        return label, told | {"digest": file_sha256(path)[:16]}
    tensors = read_tensors(path)
    found = sketch(tensors)
    scale = np.linalg.norm(found)
    if base is not None and item["kind"] == "weights":
        scale = min(scale, np.linalg.norm(found - base))
    told |= {"digest": content(tensors), "sketch": [float(f"{value:.6g}") for value in found]}
    return label, told | {"scale": float(f"{scale:.6g}")}


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{16,64}", value))


# Running, comparing and writing


def folder() -> Path:
    """Where the golden values are committed."""
    return root_folder() / "tests" / "golden"


def notebooks_of(study: str) -> list[str]:
    """The notebooks of one of :data:`STUDIES`."""
    usual = [notebook.name for notebook in find(None)]
    return [name for name in available() if (name in usual) != study.endswith("-long")]


def run(study: str, say: Callable[[str], Any] = print) -> dict[str, Any]:
    """Run the notebooks of one of :data:`STUDIES` cold, on one thread, and :func:`collect` what
    they gave.

    The run and its store lie in a temporary folder. MissingData for a profile whose pictures are
    not there.
    """
    check_choice("golden study", study, STUDIES)
    with tempfile.TemporaryDirectory(prefix="bvlib-golden-") as scratch:
        own = {"BVLIB_RUNS": f"{scratch}/runs", "BVLIB_STORE": f"{scratch}/store"}
        before = dict(os.environ)
        os.environ.update(own, OMP_NUM_THREADS="1")
        try:
            jobs = records.jobs(notebooks_of(study), study.removesuffix("-long"), 0)
            for job in jobs:
                workflow.run_job(job, say)
            return collect(jobs[0].out)
        finally:
            os.environ.clear()
            os.environ.update(before)


def read(folder: Path, study: str) -> dict[str, Any]:
    """The committed golden values of a study. MissingData when there are none."""
    path = folder / f"{study}.json"
    if not path.is_file():
        mend = f"write them with `bv golden --write {study}`"
        raise MissingData(f"no golden values of {study} in {shown(folder)}: {mend}")
    return read_json(path)


def compare(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """A line for each artefact and table that differs, is missing or is new, in order of first
    use; empty if none.

    Bits where processor, versions and threads are those of the golden run, else nearness: see the
    head of this module.
    """
    exact = wanted["environment"] == found["environment"]
    lines = []
    for part, label, old, new in _pairs(wanted, found):
        if old is None:
            lines.append(f"{label}: new, not among the golden values")
        elif new is None:
            lines.append(f"{label}: missing")
        elif old["digest"] != new["digest"] and (told := _apart(part, old, new, exact)):
            lines.append(f"{label} ({new['notebook']}): {told}")
    return lines


def _pairs(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[tuple]:
    """(part, label, entry before, entry now) of each artefact and table, None where it is not."""
    for part in PARTS:
        before, after = ({each["label"]: each for each in of[part]} for of in (wanted, found))
        for label in before | after:
            yield part, label, before.get(label), after.get(label)


def _apart(part: str, old: Mapping[str, Any], new: Mapping[str, Any], exact: bool) -> str:
    """How far two entries of other digests are apart, in words; empty if they are near."""
    held = PARTS[part]
    if held not in old or held not in new:
        return "its content differs" if exact else ""
    if part == "artefacts":
        far = np.linalg.norm(np.subtract(old[held], new[held])) / max(old["scale"], 1e-12)
        near = far <= WEIGHTS and not exact
        return "" if near else f"differs by {far:.2g} of what was learnt (L2)"
    if list(map(len, old[held])) != list(map(len, new[held])):
        return "has other rows or columns"
    pairs = list(zip(*(itertools.chain(*entry[held]) for entry in (old, new)), strict=True))
    if exact:
        return f"{sum(a != b for a, b in pairs)} of {len(pairs)} cells differ"
    numbers = [(a, b) for a, b in pairs if isinstance(a, float) and isinstance(b, float)]
    far = sum(abs(a - b) > max(POINTS, RELATIVE * abs(a)) for a, b in numbers)
    return f"{far} of {len(numbers)} numbers are far" if far > FREE * len(numbers) else ""


def write(folder: Path, study: str, found: Mapping[str, Any]) -> Path:
    """Write a run's values as the golden ones; the path. BvError, naming the first, when one
    differs in a notebook none of whose recipes was raised."""
    path = folder / f"{study}.json"
    if path.is_file():
        old = read(folder, study)
        if old["environment"] != found["environment"]:
            made = f"the golden values of {study} were made with {old['environment']}"
            mend = f"write them there, or delete {path.name} first and say in the commit that the "
            raise BvError(f"{made}: {mend}results are the same")
        both = [(label, a, b) for _, label, a, b in _pairs(old, found) if a and b]
        # what is made from the result of a raised recipe differs with it
        raised = {b["notebook"] for _, a, b in both if a["recipes"] != b["recipes"]}
        for label, before, now in both:
            if before["digest"] != now["digest"] and now["notebook"] not in raised:
                which = f"{label} differs, but its recipes {', '.join(now['recipes'])}"
                mend = "mend the code, or raise the version of the recipe that is meant to change"
                raise BvError(f"{which} have the same versions: {mend} and say so in CHANGELOG.md")
    text = f'{{"environment": {json.dumps(found["environment"])}'
    for part in PARTS:
        body = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in found[part])
        text += f',\n"{part}": [\n{body}]'
    write_text(path, text + "}\n")
    return path
