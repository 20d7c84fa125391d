"""Cases from the field: weights of others, which `bv import` reads or refuses."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from field import ROWS, call, cli
from safetensors.torch import save_file

from bvlib.files.weights import save_weights
from bvlib.worlds import bases
from bvmake.imports import foreign

Weights = dict[str, torch.Tensor]


def below(prefix: str, theta: Weights) -> Weights:
    return {prefix + key: tensor for key, tensor in theta.items()}


def replaced(change: Callable[[torch.Tensor], torch.Tensor], key: str = "proj") -> Callable:
    return lambda t: {**t, key: change(t[key])}


# What torch.save wrote, by case; most are also in the wild as safetensors.
HELD: dict[str, tuple[str, Callable[[Weights], Any]]] = {
    "prefix _orig_mod. (open_clip#639)": ("M", lambda t: below("_orig_mod.", t)),
    "prefix net., Lightning's dict with optimizer states": (
        "M",
        lambda t: {"state_dict": below("net.visual.", t), "optimizer_states": [{"state": {}}]},
    ),
    "prefix clip.visual.": ("M", lambda t: below("clip.visual.", t)),
    "prefix student. (a wrapper that nobody knows)": ("new", lambda t: below("student.", t)),
    "prefixes of DDP and compile": ("new", lambda t: below("module._orig_mod.", t)),
    "'model' and 'model_ema' in one file": ("new", lambda t: {"model": t, "model_ema": t}),
    "bf16": ("issue", lambda t: {k: v.bfloat16() for k, v in t.items()}),
    "fp16": ("issue", lambda t: {k: v.half() for k, v in t.items()}),
    "fp16 with inf": ("new", replaced(lambda v: (v + 1e6).half())),
    "float64 beyond float32": ("new", replaced(lambda v: v.double() * 1e60)),
    "NaN weights": ("S8", replaced(lambda v: v * math.nan)),
    "a saved difference": ("S11", lambda t: {k: 0.01 * v for k, v in t.items()}),
    "int8 weights": ("S11", replaced(lambda v: (100 * v).to(torch.int8))),
    "GPTQ": ("new", lambda t: {**t, "x.qweight": torch.ones(2, dtype=torch.int32)}),
    "a LoRA adapter (fusion_bench#27)": ("M", lambda t: below("x.lora_A.weight", t)),
    "another architecture": ("issue", lambda t: {k: torch.cat([v, v]) for k, v in t.items()}),
    "a pickle that needs code": ("issue", lambda t: {"state_dict": t, "args": Path("x")}),
}
BYTES = {
    "an LFS pointer (HistGen#9)": b"version https://git-lfs.github.com/spec/v1\n",
    "a web page (HistGen#9)": b"<html>",
    "index.json under another name": b'{"weight_map": {}}',
    "an answer of a server": b"Entry not found",
    "an empty file": b"",
}


def read(case: str, path: Path, tried: str, *more: str, kind: str = "task-vector") -> None:
    """A row for `bv import` of a file."""
    words = ["import", f"--{kind}", path, "--base", "small", "--out", f"in{len(ROWS)}.safetensors"]
    cli(case, *words, *more, tried=tried)


def weights() -> None:
    """Others' checkpoints."""
    theta = {key: tensor.contiguous() for key, tensor in bases.load("small").theta.items()}
    for number, (tried, (case, held)) in enumerate(HELD.items()):
        torch.save(held(theta), path := Path(f"ft{number}.pt"))
        read(case, path, tried)
    torch.save({k: 0.01 * v for k, v in theta.items()}, "tau.pt")
    read("S11", Path("tau.pt"), "a difference that is declared", "--difference")
    torch.save(theta, "whole.pt")
    read("new", Path("whole.pt"), "weights that are declared a difference", "--difference")
    Path("cut.pt").write_bytes(Path("whole.pt").read_bytes()[:5000])
    read("issue", Path("cut.pt"), "a cut file")
    for number, (tried, content) in enumerate(BYTES.items()):
        Path(f"x{number}.pt").write_bytes(content)
        read("M", Path(f"x{number}.pt"), f"{tried} called .pt")


def shards_and_adapters() -> None:
    """A model in several files; LoRA adapters; what is written here for others."""
    theta = {key: tensor.contiguous() for key, tensor in bases.load("small").theta.items()}
    keys = sorted(theta)
    Path("model").mkdir()
    for name, own in {"a": keys[::2], "b": keys[1::2]}.items():
        save_file({k: theta[k] for k in own}, f"model/{name}.safetensors")
    named = {k: f"{'ab'[i % 2]}.safetensors" for i, k in enumerate(keys)}
    for tried, index in {
        "a sharded folder (picotron#28)": named,
        "an index that names a missing shard": {**named, "x": "c.safetensors"},
        "an index that names the wrong shard": {**named, keys[0]: "b.safetensors"},
        "an index that leads out of its folder": {**named, "x": "../c.safetensors"},
    }.items():
        Path("model", foreign.INDEX).write_text(json.dumps({"weight_map": index}))
        read("M" if index is named else "new", Path("model"), tried)
    name, wide = "base_model.model.vision_model.encoder.layers.0.self_attn.q_proj", 128
    a, b = torch.ones(2, wide), torch.ones(wide, 2)
    for tried, (config, tensors) in {
        "a LoRA adapter whose base is given (fusion_bench#27)": ({}, {"A": a, "B": b}),
        "one that began with PiSSA": ({"init_lora_weights": "pissa"}, {"A": a, "B": b}),
        "half of one": ({}, {"A": a}),
        "one in int8": ({}, {"A": a.char(), "B": b.char()}),
    }.items():
        Path(folder := "-".join(tried.split()[:4])).mkdir()
        told = {"peft_type": "LORA", "lora_alpha": 2, **config}
        Path(folder, "adapter_config.json").write_text(json.dumps(told))
        held = {f"{name}.lora_{part}.weight": tensor for part, tensor in tensors.items()}
        save_file(held, f"{folder}/adapter_model.safetensors")
        read("issue" if "is given" in tried else "new", Path(folder), tried, kind="lora")
    save_weights("mine.safetensors", {"w": torch.ones(2)})
    tried = "mode of written weights (safetensors#782)"
    call("M", tried, lambda: oct(Path("mine.safetensors").stat().st_mode & 0o777))
