"""Laws of the vector algebra, and that a mismatch says which tensor."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bvlib.core.errors import BvError, unknown
from bvlib.core.rng import derive, generator, numpy_rng
from bvlib.core.vectors import BackdoorVector, TaskVector, magnitude_threshold

torch.set_num_threads(1)
settings.register_profile("laws", deadline=None, max_examples=50, database=None)
settings.load_profile("laws")

SHAPES = {"conv.weight": (2, 3), "proj": (4,), "scale": (), "empty": (0, 2)}
SIZE = sum(math.prod(shape) for shape in SHAPES.values())


@st.composite
def thetas(draw):
    """A small state dict of float32 tensors, one of them 0-dimensional and one without entries."""
    number = st.floats(-100, 100, width=32, allow_subnormal=False)
    values = torch.tensor(draw(st.lists(number, min_size=SIZE, max_size=SIZE)), dtype=torch.float32)
    theta, at = {}, 0
    for key, shape in SHAPES.items():
        size = math.prod(shape)
        theta[key], at = values[at : at + size].reshape(shape), at + size
    return theta


vectors = thetas().map(TaskVector)
scales = st.floats(-8, 8, width=32)


def close(a, b, rtol=1e-5, atol=1e-3):
    """Equal to rounding, tensor by tensor; takes vectors or state dicts."""
    a, b = getattr(a, "tensors", a), getattr(b, "tensors", b)
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=rtol, atol=atol) for k in a)


@given(vectors, vectors, vectors)
def test_addition_is_a_group(u, v, w):
    assert close(u + v, v + u)
    assert close((u + v) + w, u + (v + w))
    assert (v - v).norm() == 0
    assert close(v + (-v), v * 0)
    assert close(u - v, u + (-v))
    assert close(sum([u, v, w]), u + v + w)


@given(vectors, vectors, scales, scales)
def test_scaling_distributes(v, w, s, r):
    assert close(s * (v + w), s * v + s * w, atol=1e-2)
    assert close((s + r) * v, s * v + r * v, atol=1e-2)
    assert close(s * v, v * s)
    assert close(v / 4, 0.25 * v)
    assert close(1 * v, v, rtol=0, atol=0)


@given(thetas(), vectors, scales)
def test_theta_plus_v_minus_v_is_theta(theta, v, s):
    assert close((theta + v) - v, theta)
    assert close(theta - s * v, theta + (-s) * v)
    assert close(theta + TaskVector.between(theta + v, theta), theta + v)


@given(vectors, vectors, scales)
def test_norm_and_cosine_laws(v, w, s):
    assert v.dot(w) == pytest.approx(w.dot(v))
    assert v.norm() ** 2 == pytest.approx(v.dot(v))
    assert v.norm() == pytest.approx(math.hypot(*v.norm_by_tensor().values()))
    assert v.norm() == pytest.approx(float(v.flat().double().norm()))
    assert (s * v).norm() == pytest.approx(abs(s) * v.norm(), rel=1e-4, abs=1e-4)
    assert (v + w).norm() <= v.norm() + w.norm() + 1e-3
    if v.norm() > 1e-3 and w.norm() > 1e-3:
        assert -1 <= v.cosine(w) <= 1
        assert v.cosine(2 * v) == pytest.approx(1)
        assert v.cosine(-v) == pytest.approx(-1)
        assert v.cosine(w) == pytest.approx(w.cosine(v))


def test_cosine_with_zero_is_nan():
    v = TaskVector({"a": torch.ones(3)})
    assert math.isnan(v.cosine(0 * v))


def test_nothing_changes_in_place():
    theta, v = {"a": torch.ones(3)}, TaskVector({"a": torch.ones(3)})
    theta + v, theta - v, v + v, 2 * v, v.sparsify(0.5), v.random_like(0)
    assert torch.equal(theta["a"], torch.ones(3)) and torch.equal(v.tensors["a"], torch.ones(3))


@pytest.mark.parametrize(
    "scale", [2, 2.0, np.float32(2), np.float64(2), np.int64(2), torch.tensor(2.0)]
)
def test_numbers_of_every_library_scale(scale):
    v = TaskVector({"a": torch.tensor([1.0, 2.0])}, "v")
    for scaled in (scale * v, v * scale):
        assert isinstance(scaled, TaskVector) and scaled.name == "v"
        assert scaled.tensors["a"].dtype == torch.float32
        assert scaled.tensors["a"].tolist() == [2.0, 4.0]


def test_what_makes_no_sense_is_a_type_error():
    v = TaskVector({"a": torch.ones(2)})
    for nonsense in (lambda: v + 1, lambda: v - {"a": torch.ones(2)}, lambda: v * v, lambda: 1 / v):
        with pytest.raises(TypeError):
            nonsense()


def test_class_and_name_of_results():
    tau, bv = TaskVector({"a": torch.ones(2)}, "tau"), BackdoorVector({"a": torch.ones(2)}, "bv")
    assert type(bv + bv) is BackdoorVector and type(0.5 * bv) is BackdoorVector
    assert type(bv + tau) is TaskVector and type(tau - bv) is TaskVector
    assert type(bv.random_like(0)) is TaskVector
    assert (2 * bv).name == "bv" and (bv + bv).name == ""
    assert (
        type(BackdoorVector.between({"a": torch.ones(2)}, {"a": torch.zeros(2)})) is BackdoorVector
    )
    assert repr(bv) == "BackdoorVector('bv', 1 tensors, 2 entries)"


@given(vectors, st.integers(0, 2**40))
def test_random_like_matches_every_norm_and_nothing_else(v, seed):
    placebo = v.random_like(seed)
    assert placebo.norm_by_tensor() == pytest.approx(v.norm_by_tensor(), rel=1e-5, abs=1e-30)
    assert {k: (t.shape, t.dtype) for k, t in placebo.tensors.items()} == {
        k: (t.shape, t.dtype) for k, t in v.tensors.items()
    }
    assert close(placebo, v.random_like(seed), rtol=0, atol=0)


def test_random_like_depends_on_the_seed_not_on_the_order():
    v = TaskVector({"a": torch.ones(500), "b": torch.ones(500)})
    w = TaskVector({"b": torch.ones(500), "a": torch.ones(500)})
    assert torch.equal(v.random_like(1).tensors["a"], w.random_like(1).tensors["a"])
    assert abs(v.random_like(1).cosine(v.random_like(2))) < 0.2
    assert abs(v.random_like(1).cosine(v)) < 0.2


def test_sparsify_by_hand():
    # Magnitudes over both tensors: 5 4 3 2 1. Half of 5 is 2.5, rounded to even: 2 entries are
    # kept.
    v = TaskVector({"a": torch.tensor([1.0, -5.0]), "b": torch.tensor([[3.0], [-4.0], [2.0]])})
    kept = v.sparsify(0.5)
    assert kept.tensors["a"].tolist() == [0, -5] and kept.tensors["b"].flatten().tolist() == [
        0,
        -4,
        0,
    ]
    assert kept.density() == pytest.approx(2 / 5)
    assert close(v.sparsify(1.0), v, 0, 0) and v.sparsify(0.0).norm() == 0
    assert v.sparsify(1e-9).density() == pytest.approx(1 / 5)  # at least one entry
    ties = TaskVector({"a": torch.tensor([2.0, -2.0, 2.0, 1.0])})
    assert ties.sparsify(0.25).tensors["a"].tolist() == [
        2,
        -2,
        2,
        0,
    ]  # equal to the threshold: kept


@given(
    st.integers(1, 400),
    st.floats(0.01, 1.0),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_threshold_agrees_with_a_full_sort(size, density, dtype):
    v = TaskVector({"a": torch.randn(size, generator=generator(size)).to(dtype)})
    keep = max(1, round(density * size))
    sparse = v.sparsify(density).tensors["a"]
    expected = v.tensors["a"].abs().sort(descending=True).values[keep - 1]
    assert torch.equal(sparse != 0, (v.tensors["a"].abs() >= expected) & (v.tensors["a"] != 0))
    if keep < size:
        assert magnitude_threshold(v.tensors, density) == float(expected)


@pytest.mark.parametrize("density", [20, -0.1, 1.5, math.nan, "0.2"])
def test_density_is_a_share(density):
    with pytest.raises(BvError, match="share between 0 and 1"):
        TaskVector({"a": torch.ones(3)}).sparsify(density)


def test_percent_for_a_share_gets_a_hint():
    with pytest.raises(BvError, match="did you mean 0.2"):
        TaskVector({"a": torch.ones(3)}).sparsify(20)


BAD = {
    "missing": ({}, "'proj' is in"),
    "unexpected": ({"proj": torch.ones(2), "extra": torch.ones(1)}, "'extra' is in"),
    "shape": ({"proj": torch.ones(2, 1)}, "'proj' has shape"),
    "dtype": ({"proj": torch.ones(2, dtype=torch.float64)}, "'proj' has dtype"),
    "device": ({"proj": torch.ones(2, device="meta")}, "'proj' has device"),
}


@pytest.mark.parametrize("tensors, message", BAD.values(), ids=BAD)
def test_a_mismatch_is_one_line_naming_the_tensor(tensors, message):
    good, bad = TaskVector({"proj": torch.ones(2)}), TaskVector(tensors)
    for action in (
        lambda: good + bad,
        lambda: good - bad,
        lambda: good.dot(bad),
        lambda: good.cosine(bad),
        lambda: good.tensors + bad,
        lambda: good.tensors - bad,
        lambda: TaskVector.between(good.tensors, tensors),
        lambda: good.map(lambda t: t[:1]),
    ):
        with pytest.raises(BvError) as caught:
            action()
        assert "\n" not in str(caught.value)
        assert "tensor 'proj'" in str(caught.value) or "tensor 'extra'" in str(caught.value)
    with pytest.raises(BvError, match=message):
        good + bad


def test_counters_must_agree_and_are_left_out():
    start = {"w": torch.zeros(2), "steps": torch.tensor(3)}
    v = TaskVector.between({"w": torch.ones(2), "steps": torch.tensor(3)}, start)
    assert list(v.tensors) == ["w"]
    moved = start + v
    assert moved["w"].tolist() == [1, 1] and moved["steps"].item() == 3
    assert moved["steps"] is not start["steps"]
    with pytest.raises(BvError, match="'steps' is torch.int64 and differs"):
        TaskVector.between({"w": torch.ones(2), "steps": torch.tensor(4)}, start)
    with pytest.raises(BvError, match="'steps' is torch.int64"):
        TaskVector({"steps": torch.tensor(3)})


def test_parameters_that_need_gradients_are_detached():
    theta = {"w": torch.nn.Parameter(torch.ones(2))}
    assert not TaskVector.between(theta, {"w": torch.zeros(2)}).tensors["w"].requires_grad


def test_infinite_entries_are_refused_where_they_would_vanish():
    with pytest.raises(BvError, match="'w' has entries that are not finite"):
        TaskVector({"w": torch.tensor([1.0, math.nan, 2.0])}).sparsify(0.5)


def test_an_unknown_name_gives_a_near_one_if_there_is_one():
    error = unknown("profile", "minni", ["smoke", "mini"])
    assert str(error) == "unknown profile 'minni': did you mean 'mini'? known: smoke, mini"
    far = str(unknown("parameter", "tpyo", ["tasks", "seed"]))  # none is spelt much like it
    assert far == "unknown parameter 'tpyo'; known: tasks, seed"
    assert unknown("task", "x", [])._render_traceback_() == [
        "BvError: unknown task 'x'; known: (none)"
    ]


def test_named_streams_are_fixed_and_apart():
    assert derive(0, "a") == 2671967653362453091  # first 8 bytes of sha256('[0, "a"]'), halved
    assert derive(0, "a") != derive(1, "a") != derive(1, "b") and derive(0, "a", 1) != derive(
        0, "a1"
    )
    assert 0 <= derive(2**70, "x") < 2**63
    assert torch.equal(
        torch.rand(3, generator=generator(5, "n")), torch.rand(3, generator=generator(5, "n"))
    )
    assert numpy_rng(5, "n").random() == numpy_rng(5, "n").random()
