"""Checks that several test files share."""

from contextlib import contextmanager

import pytest
import torch

from bvlib.errors import BvError


@contextmanager
def one_line(*words):
    """The block must raise a BvError of one line in which all the words occur."""
    with pytest.raises(BvError) as caught:
        yield
    text = str(caught.value)
    assert "\n" not in text and not [word for word in words if word not in text], text


def same_bits(left, right):
    """Whether two state dicts hold the same tensors, bit by bit."""
    return left.keys() == right.keys() and all(torch.equal(tensor, right[key]) for key, tensor in left.items())
