"""The door for files of others: fine-tuned checkpoints, Hugging Face's CLIP, LoRA adapters and
published triggers become safetensors with a card.

Nothing here runs code that a file brings: pickles go through ``torch.load(weights_only=True)``,
arrays through ``np.load(allow_pickle=False)``, the rest is safetensors.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bvlib.attacks.triggers import Trigger
from bvlib.core.encoder import Encoder
from bvlib.core.errors import BvError
from bvlib.files.safe import file_sha256
from bvlib.files.weights import save_weights
from bvlib.worlds import bases, clip
from bvmake.imports import checkpoints, lora

MEAN, STD = bases.open_clip.OPENAI_DATASET_MEAN, bases.open_clip.OPENAI_DATASET_STD
# the published clamp: over all channels, -1.792 to 2.146
LOW, HIGH = -MEAN[0] / STD[0], (1 - MEAN[2]) / STD[2]


def import_file(
    kind: str, path: str | Path, out: str | Path, base: str | None = None, difference: bool = False
) -> Path:
    """One file of others as safetensors with a card at ``out``: a "task-vector", "hugging-face"
    weights, a "trigger", or a folder of "lora".

    The readers in `checkpoints.py` and `lora.py` beside this file, and :func:`trigger_npy`,
    say what each may hold. ``base`` is what weights must fit: a shipped base, a .safetensors file
    with its card, or (task-vector, lora) an open_clip name, with its weights as "ViT-B-32:openai".
    ``difference``: a task-vector's file holds what is to be added to it. A trigger's file holds
    patch (3, s, s) and mask (1, s, s). Raises BvError for an unknown base, a base without weights
    where something is added to them, a file of another form, an ``out`` that is there or no
    .safetensors.
    """
    path, out = Path(path).expanduser(), Path(out).expanduser()
    if out.exists() or out.suffix != ".safetensors":
        why = "is there already" if out.exists() else "is no .safetensors file"
        raise BvError(f"{out} {why}: name another --out")
    told: dict[str, Any] = {"base": base}
    if kind == "trigger":
        made = trigger_npy(path)
        theta = {"patch": made.patch, "mask": made.mask}
        told = {"place": made.place, "name": made.name}
    elif kind == "hugging-face":
        theta = checkpoints.hugging_face(path, bases.load(base) if base else None)
    elif base is None:
        raise BvError(f"{path.name} needs --base, the model that it must fit, such as ViT-B-32")
    else:
        encoder = _base(base, added=kind == "lora" or difference)
        if kind == "lora":
            theta = lora.merged(path, encoder)
        else:
            theta = checkpoints.task_vector_pt(path, encoder, difference)
    if path.is_file():
        told["from_sha256"] = file_sha256(path)
    save_weights(out, theta, {"imported": kind, "from": path.name, **told})
    return out


def _base(name: str, added: bool) -> Encoder:
    """A base by its name. BvError when something is to be ``added`` to its weights and an open_clip
    name brings none: they would be random."""
    if name in bases.shipped() or name.endswith(".safetensors"):
        return bases.load(name)
    if name.startswith(clip.PLACES):
        return clip.build(name)
    architecture, _, tag = name.partition(":")
    if added and not tag:
        mend = f"name them as {name}:openai, or a .safetensors file"
        raise BvError(f"{name} names no weights, and the file is added to the base's: {mend}")
    return clip.build(architecture, tag or None)


def trigger_npy(path: str | Path) -> Trigger:
    """The trigger (3, side, side) of a published BadMerging file, such as
    On_CIFAR100_Tgt_1_L_22.npy.

    There: float32 (3, side, side), RGB, in CLIP's *normalised* space (x - mean) / std, clamped to
    one range for all channels, -1.792 to 2.146, so that pixels reach from -0.086 to 1.058 (in the
    two shipped optimised files 16 % and 29 % of the values lie outside 0 to 1). It is pasted
    bottom right after normalisation, on 224 px, and its mask is "value ≠ 0", channel by channel: a
    value of exactly 0 lets the image through.

    Here: pixels, clipped to [0, 1] as a picture is. The mask is explicit and 1 everywhere, which is
    the same for all shipped files as none has a 0; a file that has some is told by a warning.

    Raises BvError for another shape or range, pixels in 0 to 1 or 0 to 255 included, and for
    objects (they can run code).
    """
    path = Path(path)
    if not path.is_file():
        raise BvError(f"no trigger file {path}: check the path")
    try:
        array = np.load(path, allow_pickle=False)
    except Exception:  # ValueError for objects and for damage, EOFError, OSError
        why = "nothing else is read, as pickled objects can run code"
        raise BvError(f"{path.name} is no .npy array of numbers: {why}") from None
    form = "a trigger file holds one float array (3, side, side)"
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise BvError(f"{path.name} is no array of numbers: {form}")
    if not array.size or array.shape != (3, *array.shape[-1:] * 2):
        last = array.ndim == 3 and array.shape[-1] == 3
        hint = "; its channels come last, use array.transpose(2, 0, 1)" if last else ""
        raise BvError(f"{path.name} has shape {array.shape}: {form}{hint}")
    low, high = float(array.min()), float(array.max())
    inside = low >= LOW - 1e-3 and high <= HIGH + 1e-3  # not so when they are no numbers
    if not inside or (low >= 0 and high <= 1):
        space = f"CLIP's normalised space, {LOW:.3f} to {HIGH:.3f} and below 0 somewhere"
        told = f"goes from {low:.3g} to {high:.3g}: a trigger file is in {space}"
        raise BvError(f"{path.name} {told}; make pixels a Trigger directly")
    if zeros := int((array == 0).sum()):
        said = "exactly 0, transparent in the published code and opaque here"
        warnings.warn(f"{path.name} has {zeros} values of {said}", stacklevel=2)
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    patch = (torch.from_numpy(array.astype(np.float64)) * std + mean).clamp(0, 1).float()
    return Trigger(patch, torch.ones(1, *patch.shape[1:]), name=path.stem)
