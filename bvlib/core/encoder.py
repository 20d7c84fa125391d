"""Encoders: open_clip models seen as a pure function of their image-tower weights.

A model is split into what merging moves, theta (the state dict of the image tower), and what
stays: the text tower that builds zero-shot heads, the normalisation of pixels, the logit scale. So
every model of the study is an :class:`Encoder` plus a dict of tensors.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from bvlib.core.errors import BvError, check_choice
from bvlib.core.tower import lean, onednn
from bvlib.core.vectors import StateDict
from bvlib.files import weights
from bvlib.files.digests import digest

log = logging.getLogger("bvlib")

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
EVALUATED = {"images": 0}  # by `predict` in this process, for a run's record
# images a pass without gradients: on two cores and 32 px a third faster than 500, whose activations
# leave the cache
BATCH = 200
REMEMBERED = 512
_PREDICTED: dict[tuple, tuple] = {}


@dataclass
class Encoder:
    """An open_clip model whose image-tower weights are an argument: images in, features and
    classes out.

    ``theta`` are the base's own image-tower weights (the pre-trained model); ``card`` says where
    they come from; features pass through the ``adapter`` where a task has one (Surgery).
    """

    model: Any
    tokenizer: Any
    name: str = ""
    card: dict = field(default_factory=dict)
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    precision: str = "fp32"
    chunk: int | None = None
    adapter: Callable[[torch.Tensor], torch.Tensor] | None = None

    def __post_init__(self):
        self.model.eval().requires_grad_(False)
        where = next(self.model.parameters()).device
        self._mean = torch.tensor(self.mean, device=where).view(1, 3, 1, 1)
        self._std = torch.tensor(self.std, device=where).view(1, 3, 1, 1)
        self._heads: dict = {}

    @property
    def device(self) -> torch.device:
        """Where the model and what it computes live."""
        return self._mean.device

    def fitted(self, precision: str = "fp32", chunk: int | None = None) -> Encoder:
        """The same encoder with less memory: its tower computes in "bf16" autocast (weights,
        features and loss stay fp32), and sees ``chunk`` images at a time, whose activations are
        computed again in the backward pass instead of kept.

        The batch, and so the loss, stays whole: memory is that of a chunk, for one more forward
        pass. Raises BvError for an unknown precision or a chunk below 1.
        """
        check_choice("precision", precision, PRECISIONS)
        if chunk is not None and chunk < 1:
            mend = "give 1 or more, or none to take the batch whole"
            raise BvError(f"chunk {chunk} holds no image: {mend}")
        other = copy.copy(self)
        other.precision, other.chunk = precision, chunk
        return other

    @property
    def theta(self) -> StateDict:
        """The base's image-tower weights (copied)."""
        return {k: v.clone() for k, v in self.model.visual.state_dict().items()}

    @property
    def scale(self) -> float:
        """The temperature that multiplies cosine similarities."""
        return float(self.model.logit_scale.exp())

    def pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, H, W, 3) uint8 or (N, 3, H, W) float to float pixels (N, 3, H, W) in [0, 1].

        BvError for floats beyond that range, by more than rounding.
        """
        images = images.to(self.device)
        if images.dtype == torch.uint8:
            return images.permute(0, 3, 1, 2).float() / 255
        low, high = map(float, images.aminmax()) if images.numel() else (0.0, 1.0)
        if not -1e-3 <= low <= high <= 1 + 1e-3:
            raise BvError(f"pixels reach from {low:.4g} to {high:.4g}: give floats from 0 to 1")
        return images

    def features(self, theta: StateDict, pixels: torch.Tensor, tower: Any = None) -> torch.Tensor:
        """Image features (N, D), not normalised, of pixels (N, 3, H, W) in [0, 1] under weights
        theta.

        The last block computes no more than they need (:func:`lean`). ``tower``: another module
        of these weights; ``model.visual`` where hooks on it are to see every token.
        """
        tower = tower or self._lean

        def seen(part):
            bf16 = self.precision == "bf16"
            with torch.autocast(part.device.type, PRECISIONS["bf16"], enabled=bf16):
                normal = (part - self._mean) / self._std
                return functional_call(tower, theta, (normal,)).float()

        if self.chunk is None or len(pixels) <= self.chunk or not torch.is_grad_enabled():
            found = seen(pixels)
        else:
            how: Any = {"use_reentrant": False, "preserve_rng_state": False}
            parts = [checkpoint(seen, part, **how) for part in pixels.split(self.chunk)]
            found = torch.cat(parts)
        return found if self.adapter is None else self.adapter(found)

    def logits(self, features: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        """Scaled cosine logits (N, K) of features (N, D) against a head (K, D)."""
        return self.scale * torch.nn.functional.normalize(features, dim=-1) @ head.T

    @torch.no_grad()
    def head(self, classnames: Sequence[str], prompts: Sequence[str]) -> torch.Tensor:
        """Zero-shot head (K, D): text features averaged over the prompts, each of length one.

        A prompt that fills the text tower's context, and may be cut, is warned of. Raises BvError
        when there is no class or no prompt with a ``{}``, and for two classes that the tokenizer
        cannot tell apart.
        """
        if not classnames or not prompts or any("{}" not in p for p in prompts):
            given = f"{len(classnames)} names, {list(prompts)}"
            raise BvError(f"a head needs class names and prompts with {{}}: got {given}")
        key = (tuple(classnames), tuple(prompts))
        if key not in self._heads:
            texts = [p.format(c) for c in classnames for p in prompts]
            tokens = self.tokenizer(texts).to(self._mean.device)
            _check_words(tokens, classnames, len(prompts))
            f = torch.cat([self.model.encode_text(t, normalize=True) for t in tokens.split(256)])
            f = f.view(len(classnames), len(prompts), -1).mean(1)
            self._heads[key] = torch.nn.functional.normalize(f, dim=-1)
        return self._heads[key]

    @torch.no_grad()
    def predict(
        self,
        theta: StateDict,
        images: torch.Tensor,
        head: torch.Tensor,
        trigger=None,
        batch: int = BATCH,
    ) -> torch.Tensor:
        """Predicted classes (N,) int64 on the CPU; ``trigger`` is pasted in pixel space first when
        given. BvError when the answers are not finite."""
        out = []
        EVALUATED["images"] += len(images)
        for part in images.split(batch) if len(images) else ():
            x = self.pixels(part)
            if trigger is not None:
                x = trigger.paste(x)
            logits = self.logits(self.features(theta, x, self._quick), head)
            if not torch.isfinite(logits).all():
                mend = "its weights are too large or damaged; is the merging coefficient too large?"
                raise BvError(f"the model's answers are not finite: {mend}")
            out.append(logits.argmax(-1).cpu())
        return torch.cat(out) if out else torch.empty(0, dtype=torch.int64)

    @cached_property
    def _lean(self) -> Any:
        return lean(self.model.visual)

    @cached_property
    def _quick(self) -> Any:
        return lean(self.model.visual, onednn)


def _check_words(tokens: torch.Tensor, classnames: Sequence[str], prompts: int) -> None:
    """BvError for two classes of equal tokens (N, L); warns of texts that may be cut."""
    seen: dict[tuple, str] = {}
    for name, row in zip(classnames, tokens[::prompts].tolist(), strict=True):
        if (other := seen.get(tuple(row))) is not None:
            why = "no text tower can tell these classes apart, give other words"
            raise BvError(f"{other[:60]!r} and {name[:60]!r} are the same tokens: {why}")
        seen[tuple(row)] = name
    if full := int((tokens[:, -1] != 0).sum()):
        said = "%s of %s prompts fill the %s tokens of the text tower and may be cut"
        log.warning(said, full, *tokens.shape)


@dataclass(frozen=True, eq=False)
class Model:
    """What every merge and every defence gives: weights, and the encoder that sees with them.

    ``encoder`` is one encoder, or a dict from task name to encoder where each task has an adapter
    of its own (Surgery). A vector can be added or subtracted: the encoder stays.
    """

    encoder: Encoder | Mapping[str, Encoder]
    theta: StateDict

    def sight(self, task: str) -> Encoder:
        """The encoder that this model uses on a task. BvError where it has an adapter for each of
        its tasks and none for this one."""
        if not isinstance(self.encoder, Mapping):
            return self.encoder
        if task not in self.encoder:
            mend = "merge that task as well, or merge by another method"
            raise BvError(f"this merge has no adapter for task {task!r}: {mend}")
        return self.encoder[task]

    @cached_property
    def digest(self) -> str:
        """16 hex digits of the weights."""
        return weights.digest(self.theta)

    def predict(self, task: Any, trigger: Any = None, split: str = "test") -> torch.Tensor:
        """Predicted classes (N,) int64 of a task's split, with the trigger pasted when given.

        The last ``REMEMBERED`` predictions of this process are kept, as tables and rules ask for
        the same one again and again: the same weights, images, head and trigger.
        """
        encoder, images = self.sight(task.name), getattr(task, split).images
        head = encoder.head(task.classnames, task.prompts)
        plain = trigger is None or hasattr(trigger, "identity")
        if not plain or not isinstance(encoder, Encoder):
            return encoder.predict(self.theta, images, head, trigger)
        pasted = trigger and digest([trigger.identity, getattr(trigger, "place", None)])
        held = encoder, images, head  # kept with the answer, so that no other object has its id
        key = self.digest, pasted, *map(id, held)
        if key not in _PREDICTED:
            _PREDICTED[key] = *held, encoder.predict(self.theta, images, head, trigger)
            if len(_PREDICTED) > REMEMBERED:
                _PREDICTED.pop(next(iter(_PREDICTED)))
        return _PREDICTED[key][-1].clone()

    def __add__(self, vector: Any) -> Model:
        return Model(self.encoder, self.theta + vector)

    def __sub__(self, vector: Any) -> Model:
        return Model(self.encoder, self.theta - vector)
