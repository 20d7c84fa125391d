"""Feeds mutated files and values to all doors: each is either right or refused in one line.

Checkpoints, weights with cards, prepared sets, folders of images, parameters and sweep files are
made sound, then damaged by a seeded mutation. Whatever comes out is judged: a result must be of the
right form and finite, a refusal one line; nothing half-written may be left, and no code that a file
brings may run.

python benchmarks/fuzz.py --write    # 300 cases, about two minutes
python benchmarks/fuzz.py --cases 50 --seed 1    # what the tests do
"""

import argparse
import contextlib
import json
import os
import pickle
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
from report import write

from bvlib.core.errors import BvError
from bvlib.run import notebooks
from bvlib.run.points import read_sweep
from bvlib.worlds import bases, images
from bvmake.datasets import prepare
from bvmake.imports import checkpoints

Judge = Callable[[], None]  # raises AssertionError for a result that is not right


class Harm:
    """What an attacker may put into a pickle: it leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


# Mutations


def bytes_of(path: Path, rng: random.Random) -> str:
    """Damage a file's bytes."""
    data = bytearray(path.read_bytes())
    way = rng.choice(["cut", "flip", "empty", "other", "doubled", "zeros"])
    at = rng.randrange(max(1, len(data)))
    if way == "cut":
        del data[at:]
    elif way == "flip":
        for _ in range(rng.randint(1, 20)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif way == "empty":
        data = bytearray()
    elif way == "other":
        starts = [b"<!DOCTYPE html>", b"version https://git-lfs.github.com/spec/v1\n", b"{}", b"PK"]
        data = bytearray(rng.choice(starts))
    elif way == "doubled":
        data += data[:at]
    else:
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    path.write_bytes(bytes(data))
    return f"bytes {way}"


def tensors_of(theta: dict[str, Any], rng: random.Random, mark: Path) -> tuple[Any, str]:
    """Damage a state dict, or wrap it as others do."""
    name = rng.choice(sorted(theta))
    ways: dict[str, Callable[[], Any]] = {
        "missing": lambda: {k: v for k, v in theta.items() if k != name},
        "renamed": lambda: {(f"x.{k}" if k == name else k): v for k, v in theta.items()},
        "prefixed": lambda: {f"module._orig_mod.{k}": v for k, v in theta.items()},
        "nested": lambda: {"state_dict": theta, "epoch": 3},
        "half": lambda: {k: v.half() for k, v in theta.items()},
        "double": lambda: {k: v.double() for k, v in theta.items()},
        "int8": lambda: {**theta, name: theta[name].to(torch.int8)},
        "nan": lambda: {**theta, name: torch.full_like(theta[name], float("nan"))},
        "inf": lambda: {**theta, name: torch.full_like(theta[name], float("inf"))},
        "shape": lambda: {**theta, name: theta[name].flatten()[:3]},
        "transposed": lambda: {**theta, name: theta[name].T.contiguous()},
        "difference": lambda: {k: 1e-3 * torch.randn_like(v) for k, v in theta.items()},
        "complex": lambda: {**theta, name: theta[name].to(torch.complex64)},
        "empty": dict,
        "list": lambda: list(theta.values()),
        "text": lambda: {**theta, name: "weights"},
        "none": lambda: None,
        "harm": lambda: {**theta, name: Harm(mark)},
        "lora": lambda: {f"{k}.lora_A.weight": v for k, v in theta.items()},
    }
    way = rng.choice(sorted(ways))
    return ways[way](), f"tensors {way}"


def value_of(rng: random.Random) -> Any:
    """Any plain value."""
    numbers = [0, -1, 3, 0.3, 1e9, -1e-9, float("nan"), float("inf"), 10**30]
    texts = ["", "a", "0.3", "1e-1", "None", "[1", "digits", "../x", "é" * 50, "true"]
    kinds = [None, True, [], {}, [0.1, "a"], {"steps": -1}, [[1]], *numbers, *texts]
    return rng.choice(kinds)


# Doors: each makes its input, damages it, and calls what reads it


def checkpoint(folder: Path, rng: random.Random) -> tuple[str, Judge]:
    base = bases.load("small")
    path = folder / f"ft{rng.choice(['.pt', '.safetensors'])}"
    content, told = tensors_of(base.theta, rng, folder / "mark")
    plain = isinstance(content, dict) and all(isinstance(v, torch.Tensor) for v in content.values())
    if path.suffix == ".safetensors" and plain:
        save_file({k: v.contiguous() for k, v in content.items()}, path)
    elif rng.random() < 0.1:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    if rng.random() < 0.4:
        told += f", {bytes_of(path, rng)}"

    def judge() -> None:
        found = checkpoints.task_vector_pt(path, base)
        assert found.keys() == base.theta.keys()
        for name, tensor in base.theta.items():
            assert found[name].shape == tensor.shape and found[name].dtype == tensor.dtype
            assert torch.isfinite(found[name]).all()

    return f"{path.suffix} {told}", judge


def base_file(folder: Path, rng: random.Random) -> tuple[str, Judge]:
    for end in ("json", "safetensors"):
        shutil.copy(bases.WEIGHTS / f"small.{end}", folder / f"mine.{end}")
    card = folder / "mine.json"
    if rng.random() < 0.5:
        told = bytes_of(rng.choice([card, folder / "mine.safetensors"]), rng)
    else:
        content = json.loads(card.read_text())
        key = rng.choice(["sha256", "model", "mean", "std", "curve", "name"])
        content[key] = value_of(rng)
        card.write_text(json.dumps(content))
        told = f"card {key} = {content[key]!r:.30}"

    def judge() -> None:
        encoder = bases.load(str(folder / "mine.safetensors"))
        pixels = torch.rand(1, 3, 32, 32)
        assert torch.isfinite(encoder.features(encoder.theta, pixels)).all()

    return told, judge


def prepared(folder: Path, rng: random.Random) -> tuple[str, Judge]:
    draw = np.random.default_rng(rng.randrange(2**32))
    arrays: dict[str, Any] = {}
    for part, count in (("train", 20), ("test", 10)):
        arrays[f"{part}_images"] = draw.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(count) % 2
    arrays["classnames"] = np.array(["cat", "dog"])
    key, told = rng.choice(sorted(arrays)), "whole"
    ways = {
        "missing": lambda a: None,
        "float": lambda a: a.astype(float) if a.dtype.kind in "iu" else a,
        "negative": lambda a: -1 - a.astype(int) if a.dtype.kind in "iu" else a,
        "large": lambda a: a.astype(int) + 300 if a.dtype.kind in "iu" else a,
        "short": lambda a: a[:-1],
        "flat": lambda a: a.ravel(),
        "none": lambda a: a[:0],
        "same": lambda a: a[[0] * len(a)],
        "objects": lambda a: np.array([Harm(folder / "mark")] * len(a), dtype=object),
        "bool": lambda a: a.astype(bool),
    }
    if rng.random() < 0.7:
        told = rng.choice(sorted(ways))
        changed = ways[told](arrays.pop(key))
        arrays |= {} if changed is None else {key: changed}
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    if told == "whole":
        told = bytes_of(path, rng)

    def judge() -> None:
        found = images.load("mine", folder)
        for pictures, labels in (
            (found.train_images, found.train_labels),
            (found.test_images, found.test_labels),
        ):
            assert pictures.dtype == np.uint8 and pictures.shape[1:] == (32, 32, 3)
            assert len(pictures) == len(labels) and set(labels) <= set(range(len(found.classnames)))

    return f"{key} {told}", judge


def pictures(folder: Path, rng: random.Random) -> tuple[str, Judge]:
    top = folder / "photos"
    draw = np.random.default_rng(rng.randrange(2**32))
    for kind in ("cat", "dog", "été"):
        (top / kind).mkdir(parents=True)
        for i in range(6):
            array = draw.integers(0, 256, (20 + i, 24, 3), dtype=np.uint8)
            Image.fromarray(array).save(top / kind / f"{i}.png")
    victim, told = top / rng.choice(["cat", "dog"]) / f"{rng.randrange(6)}.png", "whole"
    grey = Image.fromarray(draw.integers(0, 256, (9, 9), dtype=np.uint8))
    ways: dict[str, Callable[[], Any]] = {
        "bytes": lambda: bytes_of(victim, rng),
        "text": lambda: victim.with_suffix(".txt").write_text("not a picture"),
        "named jpg": lambda: victim.rename(victim.with_suffix(".jpg")),
        "16 bit": lambda: Image.fromarray(np.zeros((8, 8), np.uint16)).save(victim),
        "palette": lambda: grey.convert("P").save(victim),
        "one row": lambda: Image.new("RGB", (3000, 1)).save(victim),
        "empty class": lambda: (top / "none").mkdir(),
        "deeper": lambda: (top / "cat" / "more").mkdir(),
        "split": lambda: shutil.move(top / "cat", top / "train" / "cat"),
        "link": lambda: (top / "dog" / "link.png").symlink_to("/nowhere.png"),
        "hidden": lambda: (top / ".cache").mkdir(),
        "words": lambda: (top / "words.yaml").write_text(yaml.safe_dump({"words": value_of(rng)})),
        "nothing": lambda: shutil.rmtree(top),
    }
    told = rng.choice(sorted(ways))
    (top / "train").mkdir() if told == "split" else None
    ways[told]()

    def judge() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = prepare.prepare("mine", top, out=folder / "out", say=lambda line: None)
            found = images.load("mine", path.parent)
        assert len(found.classnames) >= 2 and found.train_images.shape[1:] == (32, 32, 3)

    return told, judge


def parameter(folder: Path, rng: random.Random) -> tuple[str, Judge]:
    every = notebooks.find(None)
    names = sorted({name for each in every for name in each.parameters})
    name = rng.choice([*names, "coeficient", "", "scale"])
    value = value_of(rng)

    def judge() -> None:
        passed = notebooks.check_parameters(every, {name: value})
        assert any(name in given for given in passed.values())
        for given in passed.values():
            assert all(v is None or v == v for v in given.values()), "not a number"

    return f"{name} = {value!r:.30}", judge


def sweep(folder: Path, rng: random.Random) -> tuple[str, Judge]:
    content: Any = {"profile": "smoke", "seeds": [0, 1]}
    content["grid"] = {"coefficient": [0.1, 0.3], "alpha": [1.0, 5.0]}
    path, told = folder / "sweep.yaml", "whole"
    if rng.random() < 0.6:
        key = rng.choice([*content, "points", "extra"])
        content[key] = value_of(rng)
        told = f"{key} = {content[key]!r:.30}"
    path.write_text(yaml.safe_dump(content, allow_unicode=True))
    if told == "whole":
        told = bytes_of(path, rng)

    def judge() -> None:
        study = read_sweep(path, ["01"])
        assert study.jobs and all(job.name for job in study.jobs.values())

    return told, judge


DOORS = {
    "checkpoint": checkpoint,
    "base with card": base_file,
    "prepared set": prepared,
    "folder of images": pictures,
    "parameter": parameter,
    "sweep file": sweep,
}


def one(door: str, seed: int) -> tuple[str, str]:
    """(outcome, what was tried and said) of a case: "right", "refused", or what is wrong."""
    rng = random.Random(f"{door} {seed}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tried, judge = DOORS[door](folder, rng)
        before = set(folder.rglob("*"))
        outcome, said = "right", ""
        try:
            with open(os.devnull, "w") as quiet, contextlib.redirect_stderr(quiet):
                judge()
        except BvError as error:
            outcome, said = "refused", str(error)
            if "\n" in said or not said:
                outcome = "not one line"
            elif set(folder.rglob("*")) - before - {folder / "out"}:
                outcome = "something left"
        except AssertionError as error:
            outcome, said = "not right", str(error)
        except Exception as error:
            outcome, said = "traceback", f"{type(error).__name__}: {error}"
        if (folder / "mark").exists():
            outcome = "code was run"
    return outcome, f"{tried}: {said}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--show", action="store_true", help="every case")
    parser.add_argument("--write", action="store_true", help="to benchmarks/results/fuzz.csv")
    asked = parser.parse_args()
    counts, wrong, names = Counter(), [], list(DOORS)
    for i in range(asked.cases):
        door, seed = names[i % len(names)], asked.seed + i // len(names)
        outcome, told = one(door, seed)
        counts[door, outcome] += 1
        if outcome not in ("right", "refused"):
            wrong.append(f"{door} {seed}: {outcome}: {told}")
        if asked.show:
            print(f"{door} {seed}: {outcome}: {told}", flush=True)
    outcomes = dict.fromkeys(["right", "refused", *(outcome for _, outcome in counts)])
    rows = [{"door": d, **{o: counts[d, o] for o in outcomes}} for d in DOORS]
    if asked.write:
        write("fuzz", rows)
    for row in rows:
        print(row)
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
