"""The k-th largest of very many numbers that are seen in parts and can be gone through again,
without keeping or sorting them."""

import threading

import numpy as np
import torch
from torch import Tensor

MARGIN = 0.01  # share of the numbers by which a sample may be mistaken
PARTS = 1 << 20  # parts of a bracket that are counted at once
HELD = 1 << 18  # numbers that wait to be counted
INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


class Largest:
    """The k-th largest of numbers that are not negative, gone through until a bracket around it
    holds one value.

    Such floats are ordered as the integers of their bits, and so is the bracket [low, high). A
    pass counts what lies above it and in each of its parts; a bracket of at most PARTS values
    needs no second one.
    """

    def __init__(self, k: int, number: torch.dtype):
        self.k, self.number, self.integer = k, number, INTEGERS[number]
        self.low, self.high, self.done = 0, self._bits(float("inf")), False
        self.lock = threading.Lock()
        self._begin()

    @property
    def found(self) -> float:
        """The k-th largest, once ``done``."""
        return self._value(self.low)

    def _bits(self, value: float) -> int:
        return int(torch.tensor(value, dtype=self.number).view(self.integer))

    def _value(self, bits: int) -> float:
        return float(torch.tensor(bits, dtype=self.integer).view(self.number))

    def _begin(self) -> None:
        self.shift = max(0, (self.high - self.low - 1).bit_length() - (PARTS - 1).bit_length())
        self.above, self.waiting, self.held, self.counts = 0, [], 0, 0
        self.ends = self._value(self.low), self._value(self.high)

    def guess(self, sample: Tensor, share: float) -> None:
        """Look first where a sample has its largest `share`, give or take MARGIN."""
        ordered = sample.sort(descending=True).values
        top, margin = round(share * len(sample)), 1 + round(MARGIN * len(sample))
        before, after = top - margin, top + margin
        if before >= 0:
            self.high = self._bits(float(ordered[before])) + 1
        if after < len(sample):
            self.low = self._bits(float(ordered[after]))
        self._begin()

    def see(self, values: Tensor) -> None:
        """Count these values; several threads may."""
        low, high = self.ends
        here, count = values, torch.count_nonzero
        if values.device.type == "cpu":  # numpy picks a few of many values several times faster
            here, count = values.numpy(), np.count_nonzero
        above = int(count(here >= high))  # pyright: ignore[reportArgumentType]
        inside = torch.as_tensor(here[(here >= low) & (here < high)])  # pyright: ignore[reportArgumentType]
        with self.lock:
            self.above, self.held = self.above + above, self.held + len(inside)
            self.waiting.append(inside)
            if self.held >= HELD:
                self._count()

    def _count(self) -> None:
        """Sort what waits into the parts of the bracket."""
        parts = ((self.high - self.low - 1) >> self.shift) + 1
        if self.waiting:
            bits = torch.cat(self.waiting).view(self.integer)
            places = (bits - self.low) >> self.shift
            self.counts = self.counts + torch.bincount(places, minlength=parts)
        self.waiting, self.held = [], 0

    def narrow(self) -> None:
        """End a pass: the bracket becomes the part of it that holds the k-th largest, or what lies
        above or below it."""
        if self.done:
            self._begin()
            return
        self._count()
        # entries in this part or higher, from the highest part down
        reach = self.above + self.counts.flip(0).cumsum(0)  # pyright: ignore[reportAttributeAccessIssue]
        place = int(torch.searchsorted(reach, self.k))
        if self.k <= self.above:
            self.low, self.high = self.high, self._bits(float("inf"))
        elif place == len(reach):
            self.low, self.high = 0, self.low
        else:
            self.low += (len(reach) - 1 - place) << self.shift
            self.high = min(self.high, self.low + (1 << self.shift))
            self.done = self.high - self.low == 1
        self._begin()
