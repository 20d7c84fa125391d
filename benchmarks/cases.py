"""Inputs from the field that gave wrong numbers, crashes or unclear words, and what is said now.

The cases are people's: issue numbers of public projects stand beside them. A row is an input, the
exit code of `bv` (2: refused in one line), and what is printed.

python benchmarks/cases.py --write    # a minute
"""

import argparse
import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from click.testing import CliRunner
from PIL import Image
from report import write
from safetensors.torch import save_file

from bvlib.cli import main as bv
from bvlib.core.errors import BvError
from bvlib.core.metrics import attack_success_rate
from bvlib.core.vectors import TaskVector
from bvlib.files import foreign
from bvlib.files.weights import load_weights, save_weights
from bvlib.merging import merge
from bvlib.merging.streaming import merge_files
from bvlib.run import notebooks
from bvlib.run.points import read_sweep
from bvlib.worlds import bases, images

ROWS: list[dict[str, Any]] = []


def row(case: str, tried: str, code: int, said: str) -> None:
    """Keep a case; of what is printed, the words without the scratch folder's name."""
    lines = [line for line in said.replace(os.getcwd(), ".").splitlines() if line.strip()]
    lines = [line.removeprefix("bv: ") for line in lines]
    ROWS.append({"case": case, "input": tried, "exit": code, "said": " | ".join(lines[-3:])[:400]})


def call(case: str, tried: str, function: Callable[[], Any]) -> None:
    """A call of the library: its result, or the line that refuses it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row(case, tried, 0, str(function()))
    except BvError as error:
        row(case, tried, 2, str(error))


def cli(case: str, *words: Any, tried: str = "") -> None:
    """A call of `bv`."""
    found = CliRunner().invoke(bv, list(map(str, words)))
    clear = found.exception is None or isinstance(found.exception, SystemExit)
    said = found.output if clear else f"traceback: {found.exception!r}"
    row(
        case,
        tried or f"bv {' '.join(map(str, words))}".replace(os.getcwd(), "."),
        found.exit_code,
        said,
    )


def photos(name: str, content: dict[str, int], deep: str = "") -> Path:
    """A folder of pictures: {"train/cat": 6} are six of class cat below train."""
    drawn = np.random.default_rng(0)
    for where, count in content.items():
        Path(name, where).mkdir(parents=True)
        for number in range(count):
            pixels = drawn.integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(name, where, f"{number}.png"))
    return Path(name)


def prepare(case: str, source: Path, tried: str, name: str = "mine") -> None:
    os.environ["BVLIB_DATA"] = os.path.abspath("sets")
    Path("sets").mkdir(exist_ok=True)
    cli(case, "data", "prepare", name, "--from", source, tried=tried)


def sets() -> None:
    """Folders of images, and names."""
    prepare("S10", photos("a", {"cat": 4, "dog": 4}), "a set called digits", "digits")
    for i, (train, test) in enumerate(
        [("train", "valid"), ("Train", "Test"), ("training", "testing")]
    ):
        content = {f"{part}/{c}": 4 for part in (train, test) for c in ("cat", "dog")}
        prepare("S3", photos(f"b{i}", content), f"split folders {train}, {test}")
    prepare("S3", photos("c", {"photo/cat": 4, "sketch/cat": 4}), "domains above classes (PACS)")
    content = {f"{part}/{c}": 4 for part in ("train", "val", "test") for c in ("cat", "dog")}
    prepare("S3", photos("d", content), "a third split")
    deep = photos("e", {"cat": 4, "dog": 4})
    Image.fromarray(np.full((8, 8), 2000, np.uint16)).save(deep / "cat" / "deep.png")
    prepare("S5", deep, "a picture of 16 bits (Pillow#3011)")
    prepare(
        "S1",
        photos("f", {"cat": 10, "dog": 10, "cat/.ipynb_checkpoints": 10}),
        "hidden folders (vision#2831)",
    )
    heic = photos("g", {"cat": 4, "dog": 4, "owl": 0})
    (heic / "owl" / "x.heic").touch()
    prepare("S2", heic, "a class all .heic (vision#4925)")
    same = photos("h", {"cat": 6, "dog": 6})
    (same / "dog" / "same.png").write_bytes((same / "cat" / "0.png").read_bytes())
    prepare("S16", same, "an image under two classes")
    prepare("S4", photos("i", {str(n): 5 for n in range(12)}), "numbered folders (vision#714)")
    gtsrb = images.DATASETS["gtsrb"]
    order = sorted(map(str, range(43)))
    call(
        "S4", "GTSRB's folders in the order of text: the third", lambda: gtsrb.read_names(order)[2]
    )
    huge = photos("j", {"cat": 4, "dog": 4})
    Image.new("L", (14000, 14000)).save(huge / "cat" / "huge.png")
    prepare("crash", huge, "a picture of 14000 × 14000")
    head = bases.load("small").head
    for names in (("hot dog", "hot_dog"), ("A", "a")):
        call("S7", f"classes {names} (CLIP#212)", lambda names=names: head(names, ["a {}"]).shape)


def numbers() -> None:
    """Values that are no numbers, merges that overflow."""
    ones = [TaskVector({"w": torch.ones(3)})] * 2
    for value in (math.nan, math.inf):
        call(
            "S8",
            f"coefficient {value}",
            lambda v=value: merge("task_arithmetic", ones, coefficient=v),
        )
    half = [TaskVector({"w": torch.tensor([6e4]).half()})] * 2
    call(
        "S8", "an fp16 sum that overflows", lambda: merge("task_arithmetic", half, coefficient=1.0)
    )
    for name, value in {"base": 0.0, "a": 6e4, "b": 6e4}.items():
        save_file({"w": torch.full((8,), value).half()}, f"{name}.safetensors")
    paths = [Path(f"{n}.safetensors") for n in ("base", "a", "b", "out")]
    merged = ("task_arithmetic", paths[0], paths[1:3], paths[3])
    call("S8", "the same from file to file", lambda: merge_files(*merged, coefficient=1.0))
    cli("S8", "run", "01", "--profile", "smoke", "-p", "coefficient=nan")
    cli("M", "run", "01", "--profile", "smoke", "-p", "attack=badnet")
    cli("M", "run", "01", "--profile", "smoke", "-p", "merging=tie")
    cli("M", "run", "01", "--profile", "smoke", "-p", "scale=1")
    for target in (99, -1):
        call(
            "S12",
            f"target class {target} of three",
            lambda t=target: attack_success_rate([0, 1, 2], [0, 1, 2], t),
        )
    far = TaskVector({"w": torch.tensor([1.0, 1.0, math.inf])})
    call("S14", "cosine with an inf entry", lambda: ones[0].cosine(far))
    pixels = torch.full((1, 3, 32, 32), 255.0)
    call("S15", "pixels from 0 to 255 as floats", lambda: bases.load("small").pixels(pixels))
    usual = {name: each.default for name, each in notebooks.find(["01"])[0].parameters.items()}
    for name, value in (("seed", 1.7), ("coefficient", "0.5"), ("target_class", 1.0)):
        given = {**usual, name: value}
        call(
            "S9",
            f"papermill alone: {name} = {value!r} (papermill#396)",
            lambda given=given, name=name: notebooks.parameters_of("01", given)[name],
        )
    several = {**usual, "tasks": "[digits,shapes]"}
    call(
        "M",
        "papermill alone: tasks = '[digits,shapes]'",
        lambda: notebooks.parameters_of("01", several)["tasks"],
    )


def weights() -> None:
    """Others' checkpoints."""
    theta = bases.load("small").theta
    spoilt = {
        "S11: a saved difference": {k: 0.01 * (t - t.mean()) for k, t in theta.items()},
        "S11: int8 weights": {
            **theta,
            "conv1.weight": (100 * theta["conv1.weight"]).to(torch.int8),
        },
        "S8: NaN weights": {**theta, "proj": torch.full_like(theta["proj"], math.nan)},
        "M: prefix _orig_mod. (open_clip#639)": {f"_orig_mod.{k}": t for k, t in theta.items()},
        "M: a LoRA adapter (fusion_bench#27)": {f"{k}.lora_A.weight": t for k, t in theta.items()},
    }
    for i, (title, tensors) in enumerate(spoilt.items()):
        save_file({k: t.contiguous() for k, t in tensors.items()}, f"ft{i}.safetensors")
        words = ["import", "--task-vector", f"ft{i}.safetensors", "--base", "small"]
        case, _, tried = title.partition(": ")
        cli(case, *words, "--out", f"in{i}.safetensors", tried=tried)
    texts = {
        "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
        "a web page": b"<html>",
    }
    for i, (title, content) in enumerate({**texts, "an empty file": b""}.items()):
        Path(f"x{i}.pt").write_bytes(content)
        words = ["import", "--task-vector", f"x{i}.pt", "--base", "small", "--out", "o.safetensors"]
        cli("M", *words, tried=f"{title} called .pt (HistGen#9)")
    keys = sorted(theta)
    for name, own in {"a": keys[::2], "b": keys[1::2]}.items():
        save_file({k: theta[k].contiguous() for k in own}, f"part-{name}.safetensors")
    named = {k: f"part-{'a' if i % 2 == 0 else 'b'}.safetensors" for i, k in enumerate(keys)}
    Path(foreign.INDEX).write_text(json.dumps({"weight_map": named}))
    words = [
        "import",
        "--task-vector",
        foreign.INDEX,
        "--base",
        "small",
        "--out",
        "whole.safetensors",
    ]
    cli("M", *words, tried="a sharded model (picotron#28)")
    save_weights("card.safetensors", {"w": torch.ones(2)})
    for title, content in {"empty": "", "cut": "{", "a list": "[1]"}.items():
        Path("card.json").write_text(content)
        call("crash", f"a card that is {title}", lambda: load_weights("card.safetensors"))
    call(
        "M",
        "mode of written weights (safetensors#782)",
        lambda: oct(Path("card.safetensors").stat().st_mode & 0o777),
    )
    blocked = Path("blocked")
    blocked.touch()
    call(
        "crash",
        "weights below a path that is a file",
        lambda: save_weights(blocked / "w.safetensors", theta),
    )


def files() -> None:
    """Sweeps, paths."""
    Path("sweep.yaml").write_text("profile: smoke\ngrid:\n  coefficient: [1e-1, 3e-1]\n")
    call("M", "1e-1 in a sweep (pyyaml#173)", lambda: read_sweep(Path("sweep.yaml"), ["01"]).points)
    Path("sweep.yaml").write_bytes("grid: {coefficient: [0.1]}  # für".encode("cp1252"))
    call("crash", "a sweep in cp1252", lambda: read_sweep(Path("sweep.yaml"), ["01"]))
    os.environ["BVLIB_STORE"] = "~/mystore"
    notebooks.settle_folders()
    call(
        "M2",
        "BVLIB_STORE=~/mystore (papermill#316)",
        lambda: notebooks.store_folder().is_absolute(),
    )


@contextmanager
def scratch() -> Iterator[None]:
    """A folder of its own, and an environment that is put back."""
    here, kept = os.getcwd(), dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["BVLIB_RUNS"] = f"{folder}/runs"
        try:
            yield
        finally:
            os.chdir(here)
            os.environ.clear()
            os.environ.update(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="to benchmarks/results/cases.csv")
    asked = parser.parse_args()
    for part in (sets, numbers, weights, files):
        with scratch():
            part()
    for each in ROWS:
        print(f"{each['case']:6} {each['exit']}  {each['input']}\n          {each['said']}")
    if asked.write:
        write("cases", ROWS)


if __name__ == "__main__":
    main()
