"""Covering one token at a time: a defence at the input, which needs no knowledge of the attack and
leaves the weights alone.

A vision transformer reads an image as a grid of tokens (4 × 4 of 8 px on the small bases, 7 × 7 of
32 px on ViT-B/32). A trigger that lies inside one token is gone from the one copy of the image in
which that token is covered, and from no other, so a plain vote over the copies keeps the
attacker's answer; the copy that tells the truth has to be found. A trigger that lies across tokens
is outside what this defence promises. The wrapped encoder stands where an encoder does:

    >>> experiments.asr(Occluded(encoder), merged, digits, trigger, target)
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bvlib.core.encoder import Encoder
from bvlib.core.errors import BvError
from bvlib.core.vectors import StateDict


def token_masks(height: int, width: int, patch: int) -> Tensor:
    """Where each token lies: (T, 1, H, W) bool, row by row, for tokens of ``patch`` px.

    Raises BvError when the image is not a whole number of tokens, or is one token only.
    """
    if patch < 1 or height % patch or width % patch or height * width == patch * patch:
        what = f"an image of {height}×{width} px is not a grid of tokens of {patch} px"
        raise BvError(f"{what}: set patch to the ViT's patch size")
    rows, columns = height // patch, width // patch
    owner = (torch.arange(height) // patch)[:, None] * columns + torch.arange(width) // patch
    return owner == torch.arange(rows * columns).view(-1, 1, 1, 1)


def majority(classes: Tensor, logits: Tensor) -> Tensor:
    """The class that most of the copies predict, (N,) from ``classes`` (N, T) and ``logits`` (N,
    T, K).

    Ties go to the class with the larger softmax probability summed over the copies.
    """
    votes = torch.nn.functional.one_hot(classes, logits.shape[-1]).sum(1).double()
    summed = logits.double().softmax(-1).sum(1)
    return (votes + summed / (2 * classes.shape[1])).argmax(-1)  # the sums add less than one vote


@dataclass(eq=False)
class Occluded:
    """An encoder that predicts from copies of the image with a token covered; all else is the
    wrapped encoder's.

    The rule is PatchCleanser's double masking (Xiang et al. 2022) with tokens as masks. One token
    is covered at a time, T copies an image for T tokens. When all T copies agree, that is the
    answer. Otherwise each copy that contradicts the majority is tried: a second token is covered as
    well, each in turn, and when all of these agree with the copy, its class is the answer (the
    first such copy, row by row); when no copy stands this test, the majority is. So an image on
    which every pair of covered tokens leaves the right answer is safe from any trigger inside one
    token (strictly, with a fixed ``colour``: the mean moves a little with the trigger).

    ``colour`` of the cover is three numbers from 0 to 1, or "mean", the mean colour of the image
    as it arrives (ours). ``patch`` is the token's side in pixels, from the encoder when None.

    Cost in passes (covered images that go through the encoder): T an image, and c·(T − 1) − c·(c −
    1)/2 more where c of the T copies contradict the majority: 16 to 136 for 4 × 4 tokens, 49 to
    1,225 for 7 × 7. ``passes`` counts those made so far. Raises BvError for a colour of another
    form, a token side that is not known.
    """

    encoder: Encoder
    colour: str | tuple[float, float, float] = "mean"
    patch: int | None = None
    passes: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.colour != "mean" and (isinstance(self.colour, str) or len(self.colour) != 3):
            raise BvError(f"colour is 'mean' or three numbers from 0 to 1, not {self.colour!r}")
        self.patch = _token_side(self.encoder) if self.patch is None else self.patch

    def __getattr__(self, name: str):
        if name == "encoder":  # not there yet: a copy in the making
            raise AttributeError(name)
        return getattr(self.encoder, name)

    @torch.no_grad()
    def predict(
        self, theta: StateDict, images: Tensor, head: Tensor, trigger=None, batch: int = 500
    ) -> Tensor:
        """Predicted classes (N,) int64 on the CPU, as of an encoder; ``trigger`` is pasted in
        pixel space, then tokens covered.

        Images (N, H, W, 3) uint8 or (N, 3, H, W) float come in parts of ``batch``, and so do the
        covered copies.
        """
        out = []
        for part in images.split(batch) if len(images) else ():
            x = self.encoder.pixels(part)
            x = x if trigger is None else trigger.paste(x)
            out.append(self._vote(theta, x, head, batch).cpu())
        return torch.cat(out) if out else torch.empty(0, dtype=torch.int64)

    def _vote(self, theta: StateDict, x: Tensor, head: Tensor, batch: int) -> Tensor:
        masks = token_masks(*x.shape[-2:], self.patch).to(x.device)  # pyright: ignore[reportCallIssue]
        n, tokens = len(x), len(masks)
        image, token = torch.cartesian_prod(torch.arange(n), torch.arange(tokens)).T
        logits = self._covered(theta, x, masks, head, image, token, token, batch)
        logits = logits.view(n, tokens, -1)
        first = logits.argmax(-1)
        answer = majority(first, logits)
        contrary = first != answer[:, None]
        if not contrary.any():
            return answer
        pairs = (contrary[:, :, None] | contrary[:, None, :]).triu(1)
        image, one, other = pairs.nonzero(as_tuple=True)
        second = torch.diag_embed(first)  # (N, T, T): the class with both tokens covered
        found = self._covered(theta, x, masks, head, image, one, other, batch).argmax(-1)
        second[image, one, other] = second[image, other, one] = found
        stands = contrary & (second == first[:, :, None]).all(-1)
        place = stands.int().argmax(-1, keepdim=True)  # of the first copy that stands the test
        return torch.where(stands.any(-1), first.gather(1, place).squeeze(1), answer)

    def _covered(self, theta, x, masks, head, image, one, other, batch: int) -> Tensor:
        """Logits (P, K) of the images with these indices (P,), each with two tokens covered (the
        same one twice: one)."""
        colour = x.mean((2, 3), keepdim=True)
        if self.colour != "mean":
            colour = x.new_tensor(self.colour).view(1, 3, 1, 1).expand_as(colour)
        image, one, other, out = image.to(x.device), one.to(x.device), other.to(x.device), []
        for i, a, b in zip(image.split(batch), one.split(batch), other.split(batch), strict=True):
            copies = torch.where(masks[a] | masks[b], colour[i], x[i])
            out.append(self.encoder.logits(self.encoder.features(theta, copies), head))
        self.passes += len(image)
        return torch.cat(out)


def _token_side(encoder) -> int:
    """The side in pixels of a token of the encoder's ViT. Raises BvError when it has none that is
    known, or not square."""
    visual = getattr(getattr(encoder, "model", None), "visual", None)
    sides = set(getattr(visual, "patch_size", ()))
    if len(sides) != 1:
        what = "the encoder does not say how large its square tokens are"
        raise BvError(f"{what}: give patch, in pixels")
    return sides.pop()
