"""Weight files of others, read without running any code that they bring."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bvlib.core.errors import BadCheckpoint
from bvlib.files.safe import read_json
from bvlib.files.weights import load_weights, no_tensor

StateDict = dict[str, torch.Tensor]
INDEX = "model.safetensors.index.json"  # of a model in several files, as on the Hugging Face hub
USUAL = ("model.safetensors", INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
BLANK = b"\xef\xbb\xbf \t\r\n"
HARMFUL = ("os.", "posix.", "nt.", "sys.", "subprocess.", "builtins.eval", "builtins.exec")


def within(path: str | Path) -> Path:
    """A file of weights, or in a folder that of a usual name."""
    there = [Path(path, name) for name in USUAL if Path(path, name).is_file()]
    return there[0] if there else Path(path)


def tensors(path: Path) -> StateDict:
    """The state dict of a file, without running any code. BadCheckpoint in one line for anything
    else."""
    if not path.is_file():
        none = f"no weight file {path}" if not path.is_dir() else f"no {USUAL[0]} in {path}"
        raise BadCheckpoint(f"{none}: check the path, or fetch it first")
    with path.open("rb") as file:
        begins = file.read(64)
    if path.name.endswith(".index.json") and begins.lstrip(BLANK)[:1] == b"{":
        return _shards(path)
    if what := _no_weights(begins):
        raise BadCheckpoint(f"{path.name} is {what}")
    safe = begins[8:9] == b"{"  # after eight bytes that tell the length of the head
    if safe != (path.suffix == ".safetensors"):
        what = "a safetensors file under another" if safe else "no safetensors file in spite of its"
        raise BadCheckpoint(f"{path.name} is {what} name, or cut short: rename or fetch it again")
    if safe:
        return load_weights(path)[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on old pickles before it refuses them
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError, KeyError, …: whatever the bytes lead to
        raise _refusal(path.name, str(error), begins) from None
    found = _state_dicts(held)
    if len(found) > 1:
        raise BadCheckpoint(f"{path.name} holds several models, {some([*found])}: save one of them")
    if found:
        return dict(next(iter(found.values())))
    wrong = f"holds a {type(held).__name__}, not a state dict"
    if isinstance(held, Mapping) and held:
        odd = next(key for key in held if no_tensor(key, held[key]))
        wrong = f"is no state dict, {odd!r} is {no_tensor(odd, held[odd])}"
    raise BadCheckpoint(f"{path.name} {wrong}: save model.state_dict()")


def _state_dicts(held: Any, path: str = "") -> dict[str, StateDict]:
    """The state dicts of models in what a file holds, by the path of names that leads there:
    dicts of plain tensors, one of them at least a matrix (so no metrics, no buffers of a loss)."""
    if not isinstance(held, Mapping) or not all(isinstance(key, str) for key in held):
        return {}
    if held and not any(no_tensor(key, value) for key, value in held.items()):
        matrix = any(value.ndim > 1 for value in held.values())
        return {path: dict(held)} if matrix or not path else {}
    below = [_state_dicts(held[key], f"{path}.{key}".lstrip(".")) for key in held]
    return {name: found for each in below for name, found in each.items()}


def _no_weights(begins: bytes) -> str:
    """What a file that begins so is in place of weights, and the mend; "" if it may hold some."""
    start = begins.lstrip(BLANK)
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file: git lfs pull"
    if start[:1] in (b"<", b"{"):
        what = "a web page" if start[:1] == b"<" else "JSON"
        return f"{what}, not weights: fetch the file itself"
    text = start.split(b"\n")[0].decode("latin-1").strip()
    if len(text) > 3 and text.isascii() and text.isprintable():
        return f"text ({text[:30]!r} …), not weights: fetch the file itself"
    return ""


def _shards(index: Path) -> StateDict:
    """The tensors of a model in several files, each from the one that the index beside them
    names."""
    try:
        named = read_json(index)["weight_map"]
        files = sorted({str(name) for name in named.values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadCheckpoint(f"{index.name} is no index of shards: fetch it again") from None
    if strange := [name for name in files if not re.fullmatch(r"\w[\w.=+-]*", name)]:
        raise BadCheckpoint(f"{index.name} names {strange[0]!r}, which leads out of its folder")
    held = {name: tensors(index.with_name(name)) for name in files}
    if missing := [key for key in named if key not in held[named[key]]]:
        raise BadCheckpoint(f"the shards of {index.name} lack {some(missing)}: fetch them again")
    if unnamed := [key for name in files for key in held[name] if key not in named]:
        raise BadCheckpoint(f"{index.name} does not name {some(unnamed)}: fetch it again")
    return {key: held[name][key] for key, name in named.items()}


def _refusal(name: str, said: str, begins: bytes) -> BadCheckpoint:
    """Why torch would not read a file as weights only, and the way out."""
    culprit, script = re.search(r"GLOBAL ([\w.]+)", said), "TorchScript" in said
    pickled = begins[:1] == b"\x80" and "Weights only load failed" in said
    if not (culprit or script or pickled):
        return BadCheckpoint(f"{name} is cut short or no checkpoint of torch: fetch it again")
    if culprit and culprit[1].startswith(HARMFUL):
        why = f"loading it would use {culprit[1]}, which no weights need"
        return BadCheckpoint(f"{name} is refused: {why}: delete it")
    what, read = "a bare pickle", f"pickle.load(open({name!r}, 'rb'))"
    if culprit:
        what, read = culprit[1], f"torch.load({name!r}, map_location='cpu', weights_only=False)"
    elif script:
        what, read = "a TorchScript program", f"torch.jit.load({name!r}, map_location='cpu')"
    return BadCheckpoint(
        f"{name} is refused: it holds {what}, not only tensors, and loading that can run any code. "
        "If you trust its authors, convert it in a throwaway container without network that has "
        f"their code: import pickle, torch; m = {read}; "
        "torch.save(m['state_dict'] if isinstance(m, dict) else m.state_dict(), 'plain.pt'), then "
        "import plain.pt"
    )


def some(keys: list[str]) -> str:
    """Up to three names, and how many more."""
    return ", ".join(map(repr, keys[:3])) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
