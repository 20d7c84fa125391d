"""The registry of merging: what a user of model merging does to task vectors.

A new method is one function. One that needs no images gets a list of task vectors and gives one:

    @merging("median", reference="Yin et al. 2018")
    def median(vectors, *, coefficient=1.0): ...

One that looks at images names ``encoder``, ``base`` and ``seen`` among its arguments and gets the
vectors by task name:

    @merging("mine", needs="16 unlabelled dev images a task")
    def mine(vectors, *, encoder, base, seen, strength=1.0): ...

With ``after="ties"`` a method works on top of another one's merge (``merged``, θ) with the tasks'
own models (``own``), and gives an adapter for each task.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bvlib.core.encoder import Encoder, Model
from bvlib.core.errors import BvError
from bvlib.core.registry import Registry
from bvlib.core.vectors import StateDict, TaskVector, check_finite, check_same

# what a merge is given beside vectors and parameters
HANDED = ("encoder", "base", "seen", "merged", "own")


@dataclass(frozen=True, eq=False)
class Seen:
    """What a method may look at of one task: images (N, H, W, 3) uint8 without labels, the
    zero-shot head (K, D).

    ``split`` says where the images are from, "train" or "dev"; every method refuses "test".
    """

    images: Tensor
    head: Tensor
    split: str = "dev"


def see(encoder: Encoder, task: Any, split: str = "dev") -> Seen:
    """The images of a task's split without their labels, and its head."""
    return Seen(getattr(task, split).images, encoder.head(task.classnames, task.prompts), split)


def checked_vectors(function: Callable) -> Callable:
    """The function with its arguments checked, however it is called.

    BvError when it names ``seen`` without ``encoder`` and ``base``.
    """
    first, *_ = names = list(inspect.signature(function).parameters)
    if "merged" in names:  # it works on another method's merge, and checks what it is given
        return function
    looks_at = [name for name in ("encoder", "base", "seen") if name in names]
    if "seen" in looks_at and len(looks_at) < 3:
        raise BvError(
            f"{function.__name__} looks at images: name encoder, base and seen among its arguments"
        )

    @functools.wraps(function)
    def checked(*vectors: Any, **given: Any) -> Any:
        found, *more = vectors or (given.pop(first),)
        if "seen" in looks_at:
            check(found, given["encoder"], given["base"], given["seen"])
        else:
            found = check_vectors(found)
        return function(found, *more, **given)

    return checked


merging = Registry("merging", "merging method", takes=HANDED, check=checked_vectors)


def looks(name: str) -> bool:
    """Whether a merging method looks at images."""
    return "seen" in merging[name].takes


def data_free() -> list[str]:
    """The names of the merging methods that look at no images, in the order of the registry."""
    return [name for name in merging if not looks(name)]


def merge(
    name: str, vectors: Sequence[TaskVector] | Mapping[str, TaskVector], **given: Any
) -> TaskVector:
    """Merge task vectors with the method of that name: θ_0 + merge(...) is the merged model.

    ``given`` are the method's parameters and, for one that looks at images, ``encoder``, ``base``
    and ``seen``; the vectors then come by task name. Raises BvError for an unknown name or
    parameter, an empty list, vectors that do not match each other, the base or the encoder,
    entries that are not finite, a task without images, and test images.
    """
    method = merging[name]
    if "merged" in method.takes:
        raise BvError(
            f"{name!r} makes an adapter for each task, not one vector: use bvlib.merged_model"
        )
    if missing := sorted(method.takes - given.keys()):
        raise BvError(
            f"{name!r} looks at images: give it {', '.join(missing)} (see bvlib.merged_model)"
        )
    for parameter, value in given.items():
        if type(method.parameters.get(parameter)) in (int, float) and not _finite(value):
            raise BvError(f"{parameter} of {name!r} is {value!r:.40}: give a finite number")
    listed = list(vectors.values()) if isinstance(vectors, Mapping) and not looks(name) else vectors
    merged = method(listed, **given)
    for key, tensor in merged.tensors.items():
        if not torch.isfinite(tensor).all():
            what = f"tensor {key!r} has entries that are not finite"
            raise BvError(f"the merge by {name!r} cannot be used, {what}: lower its coefficient")
    return merged


def merged_model(
    name: str,
    vectors: Mapping[str, TaskVector],
    *,
    encoder: Encoder,
    base: StateDict,
    seen: Mapping[str, Seen] | None = None,
    own: Mapping[str, StateDict] | None = None,
    **parameters: Any,
) -> Model:
    """The merge by any method as a :class:`Model`; ``own`` are the tasks' models, for a method
    that works after another."""
    method, more = merging[name], {"encoder": encoder, "base": base, "seen": seen}
    if "merged" not in method.takes:
        needed = {k: v for k, v in more.items() if k in method.takes}
        return Model(encoder, base + merge(name, vectors, **needed, **parameters))
    theta = merged_model(method.more["after"], vectors, encoder=encoder, base=base, seen=seen).theta
    adapters = method(encoder=encoder, merged=theta, seen=seen, own=own, **parameters)
    return Model({task: adapter.over(encoder) for task, adapter in adapters.items()}, theta)


# What is checked


def _finite(value: Any) -> bool:
    """Whether a value is one finite number."""
    try:
        return not isinstance(value, (str, bool)) and math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError, RuntimeError):  # a list, 10**400, a long tensor
        return False


def check_vectors(vectors: Sequence[TaskVector]) -> list[TaskVector]:
    """The vectors as a list; BvError when there are none or one is no vector, not finite or does
    not fit."""
    vectors = list(vectors)
    if not vectors:
        raise BvError("nothing to merge: the list of vectors is empty")
    for number, vector in enumerate(vectors, start=1):
        if not isinstance(vector, TaskVector):
            raise BvError(
                f"vector {number} is a {type(vector).__name__}, not a TaskVector: "
                "make it with TaskVector.between(finetuned, start)"
            )
        check_same(vectors[0].tensors, vector.tensors, "vector 1", f"vector {number}")
        for key, tensor in vector.tensors.items():
            check_finite(key, tensor)
    return vectors


def check(
    vectors: Mapping[str, TaskVector], encoder: Encoder, base: StateDict, seen: Mapping[str, Seen]
) -> None:
    """Raise the BvErrors of :func:`merge` for a method that looks at images."""
    if not isinstance(vectors, Mapping):
        raise BvError(
            f"vectors must be a dict from task name to TaskVector, not a {type(vectors).__name__}"
        )
    first = check_vectors(list(vectors.values()))[0]
    floating = {k: v for k, v in base.items() if v.is_floating_point()}
    check_same(floating, first.tensors, "the base", "the vectors")
    check_seen(list(vectors), encoder, base, seen)


@torch.no_grad()
def features(encoder: Encoder, theta: StateDict, images: Tensor, batch: int = 500) -> Tensor:
    """Features (N, D), not normalised, of uint8 images (N, H, W, 3)."""
    return torch.cat(
        [encoder.features(theta, encoder.pixels(part)) for part in images.split(batch)]
    )


def check_seen(names: Sequence[str], encoder, theta: StateDict, seen: Mapping[str, Seen]) -> None:
    """BvError when weights, encoder and heads do not fit, or a task's images are missing, none,
    misshapen or of test."""
    check_same(encoder.model.visual.state_dict(), theta, "the encoder", "the weights")
    for name in names:
        task = f"task {name!r}"
        if name not in seen:
            mend = f"add seen[{name!r}] = see(encoder, task)"
            raise BvError(f"{task} has no images to look at: {mend}")
        images, split = seen[name].images, seen[name].split
        if split not in ("train", "dev"):
            only = "a merge may see train or dev images only"
            raise BvError(f"the images of {task} are of its {split} split: {only}")
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            kind = f"{images.dtype} of {tuple(images.shape)}"
            raise BvError(f"the images of {task} must be uint8 of shape (N, H, W, 3), not {kind}")
        if not len(images):
            mend = f"raise sizes.{split} or take another split"
            raise BvError(f"{task} has no {split} images: {mend}")
        width, wanted = features(encoder, theta, images[:1]).shape[1], seen[name].head.shape[1]
        if width != wanted:
            both = f"has width {wanted}, the encoder's features {width}"
            raise BvError(f"the head of {task} {both}: make it with this encoder's head()")
