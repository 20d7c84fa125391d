"""The k-th largest of what is seen in parts, against sorting."""

import pytest
import torch

from bvlib.core.rng import generator
from bvlib.merging.selection import Largest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sample", [1e-9, 1e9, 1.0, None])
def test_a_sample_that_misleads_costs_passes_and_not_the_result(dtype, sample):
    values = torch.randn(50_000, generator=generator(0, "misled"), dtype=dtype).abs()
    for k in (1, 10_000, len(values)):
        search, passes = Largest(k, dtype), 0
        search.guess(
            values[:2000] if sample is None else torch.full((100,), sample, dtype=dtype),
            k / len(values),
        )
        while not search.done:
            passes += 1
            for part in values.split(7000):
                search.see(part)
            search.narrow()
        assert search.found == float(values.sort(descending=True).values[k - 1])
        assert passes <= 5
