"""Cases from the field: numbers, weights of others, parameters, paths."""

import json
import math
import os
from pathlib import Path

import torch
from field import call, cli
from safetensors.torch import save_file

from bvlib.core.metrics import attack_success_rate
from bvlib.core.vectors import TaskVector
from bvlib.files import foreign
from bvlib.files.weights import load_weights, save_weights
from bvlib.merging import merge
from bvlib.merging.streaming import merge_files
from bvlib.run import notebooks
from bvlib.run.points import read_sweep
from bvlib.worlds import bases


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
