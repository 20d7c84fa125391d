"""Files that others made, in our names: fine-tuned checkpoints, Hugging Face CLIP weights,
published triggers.

Nothing here runs code that a file brings: pickles go through ``torch.load(weights_only=True)``,
arrays through ``np.load(allow_pickle=False)``, the rest is safetensors. What comes out is a state
dict of the image tower in open_clip's names ("conv1.weight",
"transformer.resblocks.0.attn.in_proj_weight", …) or a :class:`bvlib.attacks.triggers.Trigger`.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from bvlib.attacks.triggers import Trigger
from bvlib.core.encoder import ClipEncoder
from bvlib.core.errors import BadCheckpoint, BvError
from bvlib.files.weights import check_matches, load_weights
from bvlib.worlds.bases import open_clip
from bvlib.worlds.clip import uses_quick_gelu

StateDict = dict[str, torch.Tensor]
Base = ClipEncoder | Mapping[str, torch.Tensor]

WRAPPERS = ("module.", "model.", "image_encoder.", "clip_model.")
# What stands beside the image tower in a whole model: the text tower, the scale, a head.
BESIDE = (
    "transformer.",
    "token_embedding.",
    "positional_embedding",
    "ln_final.",
    "text_projection",
    "text.",
    "attn_mask",
    "logit_scale",
    "logit_bias",
    "classification_head.",
    "input_resolution",
    "context_length",
    "vocab_size",
)
HF_BESIDE = (
    "text_model.",
    "text_projection.",
    "logit_scale",
    "vision_model.embeddings.position_ids",
    "embeddings.position_ids",
)
HF_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
LOW, HIGH = (
    -MEAN[0] / STD[0],
    (1 - MEAN[2]) / STD[2],
)  # the published clamp: over all channels, -1.792 to 2.146


def task_vector_pt(path: str | Path, base: Base) -> StateDict:
    """Image-tower weights θ_t of a fine-tuned checkpoint (.pt, .pth, .bin or .safetensors), in the
    names and types of the base.

    The file holds a state dict, plain or under "state_dict" or "model", of an image tower or a
    whole model, with any of the prefixes ``module.``, ``model.``, ``image_encoder.``, ``visual.``;
    the text tower beside it is left out. It holds weights, not differences: the task vector is
    ``TaskVector.between(theta, base.theta)``. ``base`` is an encoder or its theta.

    Most published Task Arithmetic checkpoints are whole pickled ``ImageEncoder`` modules, which
    run code when loaded. They are refused with a BadCheckpoint that says how to convert them
    elsewhere; so are damaged files and names or shapes that do not fit the base.
    """
    path = Path(path)
    return _fitted(_image_tower(_tensors(path), path.name), _weights_of(base), path.name)  # pyright: ignore[reportArgumentType]


def hugging_face(
    path: str | Path, config: Mapping | str | Path | None = None, base: Base | None = None
) -> StateDict:
    """Image-tower weights of a Hugging Face CLIPModel, CLIPVisionModelWithProjection or
    CLIPVisionModel, in open_clip's names.

    ``path`` is the weight file (model.safetensors or pytorch_model.bin) or its folder; ``config``
    its config.json, as a file or a dict, by default the one beside it. q, k and v are stacked to
    in_proj (3D, D), the projection is turned to (D, E).

    A CLIPVisionModel has no projection: it is taken from ``base`` (an encoder or its theta), which
    the result must then fit. With an encoder, a config of another activation or number of heads is
    refused, since no tensor shows either.

    Raises BadCheckpoint for a file that needs code, is damaged, or has missing or unknown tensors;
    BvError for what does not fit.
    """
    path = Path(path)
    if path.is_dir():
        path /= (
            "pytorch_model.bin"
            if not (path / "model.safetensors").is_file()
            else "model.safetensors"
        )
    reference = _weights_of(base)
    theta = _from_hugging_face(
        {_peeled(key): tensor for key, tensor in _tensors(path).items()}, path.name, reference
    )
    theta = theta if reference is None else _fitted(theta, reference, path.name)
    if isinstance(base, ClipEncoder):
        _check_config(config, path, base)
    return theta


def trigger_npy(
    path: str | Path,
    size: int | None = None,
    place: str | tuple[int, int] = "bottom-right",
    *,
    clip: bool = True,
) -> Trigger:
    """The trigger (3, side, side) of a published BadMerging file, such as
    On_CIFAR100_Tgt_1_L_22.npy.

    There: float32 (3, side, side), RGB, in CLIP's *normalised* space (x - mean) / std, clamped to
    one range for all channels, -1.792 to 2.146, so that pixels reach from -0.086 to 1.058 (in the
    two shipped optimised files 16 % and 29 % of the values lie outside 0 to 1). It is pasted
    bottom right after normalisation, on 224 px, and its mask is "value ≠ 0", channel by channel: a
    value of exactly 0 lets the image through.

    Here: pixels, clipped to [0, 1] as a picture is; ``clip=False`` keeps the published values
    exactly. The mask is explicit and 1 everywhere, which is the same for all shipped files as none
    has a 0; a file that has some is told by a warning. ``size`` is the side that the file must
    have; a trigger is never resized.

    Raises BvError for another shape, size or range, pixels in 0 to 1 or 0 to 255 included, and for
    objects (they can run code).
    """
    path = Path(path)
    if not path.is_file():
        raise BvError(f"no trigger file {path}: check the path")
    try:
        array = np.load(path, allow_pickle=False)
    except Exception:  # ValueError for objects and for damage, EOFError, OSError
        raise BvError(
            f"{path.name} is no .npy array of numbers: nothing else is read, as pickled objects "
            "can run code"
        ) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise BvError(
            f"{path.name} is no array of numbers: a trigger file holds one float array (3, side, "
            "side)"
        )
    if array.ndim != 3 or array.shape[0] != 3 or array.shape[1] != array.shape[2] or not array.size:
        hint = (
            ": its channels come last, use array.transpose(2, 0, 1)"
            if array.ndim == 3 and array.shape[-1] == 3
            else ""
        )
        raise BvError(f"{path.name} has shape {array.shape}, a trigger file (3, side, side){hint}")
    if size is not None and array.shape[1] != size:
        raise BvError(
            f"{path.name} is {array.shape[1]} px wide, not the {size} px asked for: a trigger is "
            "never resized"
        )
    low, high = float(array.min()), float(array.max())
    if not (low >= LOW - 1e-3 and high <= HIGH + 1e-3) or (
        low >= 0 and high <= 1
    ):  # also when not a number
        raise BvError(
            f"{path.name} goes from {low:.3g} to {high:.3g}: a trigger file is in CLIP's "
            f"normalised space, {LOW:.3f} to "
            f"{HIGH:.3f} and below 0 somewhere; make pixels a Trigger directly"
        )
    zeros = int((array == 0).sum())
    if zeros:
        warnings.warn(
            f"{path.name} has {zeros} values of exactly 0, transparent in the published code and "
            "opaque here",
            stacklevel=2,
        )
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    patch = torch.from_numpy(array.astype(np.float64)) * std + mean
    patch = (patch.clamp(0, 1) if clip else patch).float()
    return Trigger(patch, torch.ones(1, *patch.shape[1:]), place, path.stem)


def _tensors(path: Path) -> StateDict:
    """The state dict of a file, without running any code. BadCheckpoint in one line for anything
    else."""
    if path.suffix == ".safetensors":
        return load_weights(path)[0]
    if not path.is_file():
        raise BadCheckpoint(f"no weight file {path}: check the path, or fetch it first")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch remarks on old pickles and TorchScript before it refuses them
            held = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # UnpicklingError, RuntimeError, KeyError, EOFError, …: whatever the bytes lead to
        raise _refusal(path, str(error)) from None
    while isinstance(held, Mapping) and (
        inner := [held[k] for k in ("state_dict", "model") if isinstance(held.get(k), Mapping)]
    ):
        held = inner[0]
    if not isinstance(held, Mapping) or not held:
        raise BadCheckpoint(
            f"{path.name} holds a {type(held).__name__}, not a state dict: save model.state_dict()"
        )
    if wrong := [
        key
        for key, tensor in held.items()
        if not isinstance(key, str) or not isinstance(tensor, torch.Tensor)
    ]:
        raise BadCheckpoint(
            f"{path.name}: {wrong[0]!r} is a {type(held[wrong[0]]).__name__}, not a tensor: save "
            "model.state_dict()"
        )
    return dict(held)


def _refusal(path: Path, said: str) -> BadCheckpoint:
    """Why torch would not read a file as weights only, and the way out."""
    culprit, script = re.search(r"GLOBAL ([\w.]+)", said), "TorchScript" in said
    if not culprit and not script and "Weights only load failed" not in said:
        return BadCheckpoint(
            f"{path.name} is cut short or no checkpoint of torch: fetch or make it again"
        )
    if culprit and culprit[1].startswith(
        ("os.", "posix.", "nt.", "sys.", "subprocess.", "builtins.eval", "builtins.exec")
    ):
        return BadCheckpoint(
            f"{path.name} is refused: loading it would use {culprit[1]}, which no weights need: "
            "delete it"
        )
    what, read = (
        "a bare pickle",
        f"import pickle, torch; m = pickle.load(open('{path.name}', 'rb'))",
    )
    if culprit:
        what, read = (
            culprit[1],
            f"import torch; m = torch.load('{path.name}', map_location='cpu', weights_only=False)",
        )
    elif script:
        what, read = (
            "a TorchScript program",
            f"import torch; m = torch.jit.load('{path.name}', map_location='cpu')",
        )
    return BadCheckpoint(
        f"{path.name} is refused: it holds {what}, not only tensors, and loading that can run any "
        "code. If you trust its authors, "
        f"convert it in a throwaway container without network that has their code: {read}; "
        "torch.save(m['state_dict'] if isinstance(m, dict) else m.state_dict(), 'plain.pt'), then "
        "import plain.pt"
    )


def _peeled(key: str) -> str:
    while key.startswith(WRAPPERS):
        key = key.split(".", 1)[1]
    return key


def _image_tower(weights: StateDict, name: str) -> StateDict:
    """The image tower's part, in its own names, of a state dict of whatever wraps it."""
    peeled: StateDict = {}
    for key, tensor in weights.items():
        if _peeled(key) in peeled:
            raise BadCheckpoint(
                f"{name} has {_peeled(key)!r} twice, under two prefixes: save one model's state "
                "dict"
            )
        peeled[_peeled(key)] = tensor
    if not any(key.startswith("visual.") for key in peeled):
        return {
            key: tensor
            for key, tensor in peeled.items()
            if not key.startswith("classification_head.")
        }
    if unknown := [key for key in peeled if not key.startswith(("visual.", *BESIDE))]:
        raise BadCheckpoint(f"{name} has tensors of no CLIP model: {_some(unknown)}")
    return {
        key.removeprefix("visual."): tensor
        for key, tensor in peeled.items()
        if key.startswith("visual.")
    }


def _weights_of(base: Base | None) -> Mapping[str, torch.Tensor] | None:
    return base.theta if isinstance(base, ClipEncoder) else base


def _check_names(missing: list[str], extra: list[str], what: str) -> None:
    """BadCheckpoint naming up to three missing and three unknown tensors, when there are any."""
    parts = [
        f"{word} {_some(keys)}"
        for word, keys in (("lacks", missing), ("has unknown", extra))
        if keys
    ]
    if parts:
        raise BadCheckpoint(f"{what}: it {' and '.join(parts)}: was it made from another model?")


def _fitted(theta: StateDict, base: Mapping[str, torch.Tensor], name: str) -> StateDict:
    """The weights in the base's order and types. BadCheckpoint naming what is missing, unknown, or
    of another shape."""
    _check_names(
        [k for k in base if k not in theta],
        [k for k in theta if k not in base],
        f"{name} does not fit the base",
    )
    check_matches(theta, dict(base), name)
    return {key: theta[key].to(tensor, copy=True) for key, tensor in base.items()}


def _from_hugging_face(
    weights: StateDict, name: str, base: Mapping[str, torch.Tensor] | None
) -> StateDict:
    """Hugging Face's names and layout to open_clip's. BadCheckpoint naming what is missing or
    unknown."""
    left = {
        key.removeprefix("vision_model."): tensor
        for key, tensor in weights.items()
        if not key.startswith(HF_BESIDE)
    }
    missing: list[str] = []

    def take(key: str) -> torch.Tensor:
        if key not in left:
            missing.append(key)
        return left.pop(key, torch.empty(0))

    theta = {
        "class_embedding": take("embeddings.class_embedding").reshape(-1),
        "positional_embedding": take("embeddings.position_embedding.weight"),
        "conv1.weight": take("embeddings.patch_embedding.weight"),
    }
    layers = len(
        {match[1] for key in left if (match := re.match(r"encoder\.layers\.(\d+)\.", key))}
    )
    names = {
        "ln_pre": "pre_layrnorm",
        "ln_post": "post_layernorm",
    }  # sic: the first is spelt so there
    for number in range(layers):
        ours, theirs = f"transformer.resblocks.{number}.", f"encoder.layers.{number}."
        names |= {ours + a: theirs + b for a, b in HF_BLOCK.items()}
        for end in ("weight", "bias"):
            theta[f"{ours}attn.in_proj_{end}"] = torch.cat(
                [take(f"{theirs}self_attn.{x}_proj.{end}") for x in "qkv"]
            )
    theta |= {
        f"{a}.{end}": take(f"{b}.{end}") for a, b in names.items() for end in ("weight", "bias")
    }
    if "visual_projection.weight" in left:
        theta["proj"] = take("visual_projection.weight").T.contiguous()
    elif base is None or "proj" not in base:
        raise BadCheckpoint(
            f"{name} has no visual_projection, like every CLIPVisionModel: give base=, whose "
            "projection is then taken"
        )
    else:
        theta["proj"] = base["proj"].clone()
    _check_names(
        missing if layers else ["encoder.layers", *missing],
        [*left],
        f"{name} is no image tower of Hugging Face's CLIP",
    )
    return theta


def _check_config(config: Mapping | str | Path | None, path: Path, base: ClipEncoder) -> None:
    """BvError when a Hugging Face config, given or beside the weights, and an encoder differ in
    what no tensor shows."""
    if not isinstance(config, Mapping):
        file = Path(config) if config is not None else path.with_name("config.json")
        if config is None and not file.is_file():
            return
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BvError(f"no readable config at {file} ({error})") from None
    config = config.get("vision_config") or config  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    quick = (
        config.get("hidden_act", "quick_gelu") == "quick_gelu"  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    )  # the default there; so are 12 heads
    if quick != uses_quick_gelu(base.model):
        kind = {True: "QuickGELU", False: "GELU"}
        raise BvError(
            f"{path.name} was trained with {kind[quick]} and the base has {kind[not quick]}: "
            "build the base "
            f"{'with' if quick else 'without'} '-quickgelu' in its name (open_clip issue 771)"
        )
    heads, has = (
        config.get("num_attention_heads", 12),  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        base.model.visual.transformer.resblocks[0].attn.num_heads,
    )
    if heads != has:
        raise BvError(
            f"{path.name} has {heads} attention heads and the base {has}: use a base of its "
            "architecture"
        )


def _some(keys: list[str]) -> str:
    """Up to three names, and how many more."""
    return ", ".join(map(repr, keys[:3])) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
