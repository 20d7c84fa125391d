"""Cases from the field: numbers that are none, disks and cards that are damaged."""

import math
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import torch
from field import call, cli, row
from safetensors.torch import save_file

from bvlib.core.encoder import Model
from bvlib.core.metrics import attack_success_rate, rate
from bvlib.core.vectors import TaskVector
from bvlib.files.weights import digest, load_weights, save_weights
from bvlib.merging import merge
from bvlib.merging.streaming import merge_files
from bvlib.run.store import Store
from bvlib.worlds import bases


def numbers() -> None:
    """Values that are no numbers, merges that overflow."""
    ones = [TaskVector({"w": torch.ones(3)})] * 2
    for case, value in (("S8", math.nan), ("S8", math.inf), ("new", "0.5"), ("new", 10**400)):
        tried = f"merge: coefficient {str(value)[:9]}"
        call(case, tried, lambda v=value: merge("ties", ones, coefficient=v))
    half = [TaskVector({"w": torch.tensor([6e4]).half()})] * 2
    tried = "merge: an fp16 sum that overflows"
    call("S8", tried, lambda: merge("task_arithmetic", half, coefficient=1.0))
    for name, value in {"base": 0.0, "a": 6e4, "b": 6e4}.items():
        save_file({"w": torch.full((8,), value).half()}, f"{name}.safetensors")
    paths = [Path(f"{n}.safetensors") for n in ("base", "a", "b", "out")]
    merged = ("task_arithmetic", paths[0], paths[1:3], paths[3])
    for value in (1.0, math.nan):
        tried = f"merge_files: fp16, coefficient {value}"
        call("S8", tried, lambda v=value: merge_files(*merged, coefficient=v))
    encoder = bases.load("small")
    images = torch.zeros(4, 32, 32, 3, dtype=torch.uint8)
    task = SimpleNamespace(name="t", classnames=("a", "b"), prompts=("a {}",))
    task.test = SimpleNamespace(images=images)
    for tried, factor in {"nan logits": math.nan, "a model of weights 1e30": 1e30}.items():
        theta = {key: factor * tensor for key, tensor in encoder.theta.items()}
        call("S8", tried, lambda theta=theta: Model(encoder, theta).predict(task))
    for case, target, labels in (
        ("S12", 99, [0, 1, 2]),
        ("S12", -1, [0, 1, 2]),
        ("new", 1, [0, 1, -1]),
        ("new", True, [0, 1, 2]),
    ):
        tried = f"ASR of target {target}, labels {labels}"
        call(case, tried, lambda t=target, n=labels: attack_success_rate([0, 1, 2], n, t))
    far = TaskVector({"w": torch.tensor([1.0, 1.0, math.inf])})
    call("S14", "cosine with an inf entry", lambda: ones[0].cosine(far))
    pixels = torch.full((1, 3, 32, 32), 255.0)
    call("S15", "pixels from 0 to 255 as floats", lambda: encoder.pixels(pixels))
    hits = torch.tensor([0.0, 1.0]).bfloat16()
    call("crash", "rate of bf16 (open_clip#916)", lambda: rate(hits))
    call("crash", "digest of bf16 (open_clip#916)", lambda: len(digest({"w": hits})))


def files() -> None:
    """Damaged cards, full and read-only disks."""
    path, theta = Path("w.safetensors"), {"w": torch.ones(300_000)}
    save_weights(path, theta)
    good = path.with_suffix(".json").read_bytes()
    for tried, content in {
        "empty": b"",
        "cut": b"{",
        "a list": b"[1]",
        "in UTF-16": "{}".encode("utf-16"),
        "after a BOM": b"\xef\xbb\xbf" + good,
    }.items():
        path.with_suffix(".json").write_bytes(content)
        call("crash", f"a card that is {tried}", lambda: len(load_weights(path)[0]))
        tried = f"merge_files beside a card that is {tried}"
        call("new", tried, lambda: merge_files("average", path, [path], Path("out.safetensors")))
    path.with_suffix(".json").write_bytes(good)
    torch.save(bases.load("small").theta, "ft.pt")
    for how in ("size=1m", "ro"):
        disk(how, path, theta)
    Path("blocked").touch()
    call("new", "below a path that is a file", lambda: save_weights("blocked/w.safetensors", theta))


def disk(how: str, path: Path, theta: dict[str, torch.Tensor]) -> None:
    """Rows for what writes to a small file system, full or read-only."""
    what, place = "a full disk" if how != "ro" else "a read-only place", Path("disk")
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        row("crash", what, 0, "not tried: only root may mount")
        return
    try:
        out = place / "out.safetensors"
        told = f"{what}: {{}} (LlamaFactory#5155)"
        call("crash", told.format("merge_files"), lambda: merge_files("average", path, [path], out))
        call("crash", told.format("save_weights"), lambda: save_weights(out, theta))
        words = ["import", "--task-vector", "ft.pt", "--base", "small", "--out", out]
        cli("crash", *words, tried=told.format("bv import"))
        store, recipes = Store(place / "store"), ["world:toy/1"]
        kept = told.format("the store")
        call("crash", kept, lambda: store.get("weights", "w", {}, lambda: theta, recipes=recipes))
        if how != "ro":
            with open(place / "filler", "wb", buffering=0) as file:
                try:
                    while file.write(b"0" * 65536):
                        pass
                except OSError:
                    pass
        os.environ["BVLIB_RUNS"] = str(place.resolve() / "runs")
        cli("crash", "run", "00", "--profile", "smoke", tried=told.format("runs"))
        left = [each.name for each in place.rglob("*.safetensors*") if each.suffix != ".lock"]
        row("crash", f"{what}: what is left there", 0, str(left))
    finally:
        subprocess.run(["umount", str(place)], check=True)
