"""Merging against cases worked out by hand, and the identities that every method must satisfy."""

import pytest
import torch

from bvlib.attacks.sbv import merge_backdoors, sbv_rule, sign_consistent
from bvlib.core.errors import BvError
from bvlib.core.rng import generator
from bvlib.core.vectors import BackdoorVector, TaskVector
from bvlib.merging import data_free, merge, merging
from bvlib.merging.datafree import average, task_arithmetic, ties, ties_tensor

torch.set_num_threads(1)


def vector(*values, kind=TaskVector):
    """A vector with one tensor "w" of these values."""
    return kind({"w": torch.tensor(values, dtype=torch.float32)})


def random_vectors(count, kind=TaskVector, **shapes):
    shapes = shapes or {"a": (5, 7), "b": (11,), "c": ()}
    return [
        kind(
            {
                key: torch.randn(shape, generator=generator(number, key))
                for key, shape in shapes.items()
            }
        )
        for number in range(count)
    ]


def values(v):
    return v.tensors["w"].tolist()


def equal(v, w):
    return v.tensors.keys() == w.tensors.keys() and all(
        torch.equal(v.tensors[k], w.tensors[k]) for k in v.tensors
    )


def close(v, w):
    return all(torch.allclose(v.tensors[k], w.tensors[k], rtol=1e-6, atol=1e-6) for k in v.tensors)


# TIES by hand. Three vectors of five entries in two tensors, density 0.6: three entries each are
# kept,
# chosen over both tensors together (per tensor it would be 1 of "a" and 2 of "b").
#
#                 a                b                      kept
#   tau_1     4     -3       0.5    1    -2        4   -3  |  0    0   -2
#   tau_2    -1     -5       0.2    3     2        0   -5  |  0    3    2
#   tau_3    -3      1       0.1   -4     2       -3    0  |  0   -4    2
#   mass                                           1   -8  |  0   -1    2
#   elected sign                                   +    -  |  0    -    +
#   agree                                          4   -3-5 |  -   -4   2+2
#   sum                                            4   -8  |  0   -4    4
#   mean                                           4   -4  |  0   -4    2
HAND = [
    TaskVector({"a": torch.tensor([4.0, -3.0]), "b": torch.tensor([0.5, 1.0, -2.0])}),
    TaskVector({"a": torch.tensor([-1.0, -5.0]), "b": torch.tensor([0.2, 3.0, 2.0])}),
    TaskVector({"a": torch.tensor([-3.0, 1.0]), "b": torch.tensor([0.1, -4.0, 2.0])}),
]


@pytest.mark.parametrize(
    "aggregate, a, b", [("sum", [4, -8], [0, -4, 4]), ("mean", [4, -4], [0, -4, 2])]
)
def test_ties_by_hand(aggregate, a, b):
    merged = ties(HAND, coefficient=1.0, density=0.6, aggregate=aggregate)
    assert merged.tensors["a"].tolist() == a and merged.tensors["b"].tolist() == b
    halved = ties(HAND, coefficient=0.5, density=0.6, aggregate=aggregate)
    assert halved.tensors["a"].tolist() == [x / 2 for x in a]


@pytest.mark.parametrize("aggregate", ["sum", "mean"])
def test_ties_exact_cancellation_is_zero(aggregate):
    # 3 and -3 have no elected sign; the usual two-way idiom would return -3 here.
    merged = ties(
        [vector(3, 1, -2), vector(-3, 1, 2)], coefficient=1.0, density=1.0, aggregate=aggregate
    )
    assert values(merged) == [0, 2 if aggregate == "sum" else 1, 0]


def test_ties_elects_by_mass_not_by_heads():
    merged = ties([vector(5), vector(-2), vector(-2)], coefficient=1.0, density=1.0)
    assert values(merged) == [5]


def test_ties_of_one_task_at_density_one_is_the_task():
    (v,) = random_vectors(1)
    for aggregate in ("sum", "mean"):
        assert equal(ties([v], coefficient=1.0, density=1.0, aggregate=aggregate), v)


def test_ties_of_two_equal_tasks():
    (v,) = random_vectors(1)
    trimmed = v.sparsify(0.2)
    assert equal(ties([v, v], coefficient=1.0, density=0.2, aggregate="mean"), trimmed)
    assert equal(ties([v, v], coefficient=1.0, density=0.2, aggregate="sum"), 2 * trimmed)


def readable_ties(tensors, thresholds, coefficient, aggregate):
    """The rule as one would write it down: trim, elect, then what has the elected sign."""
    kept = [
        torch.where(tensor.abs() >= least, tensor, torch.zeros_like(tensor))
        for tensor, least in zip(tensors, thresholds)
    ]
    mass = sum((tensor.double() for tensor in kept), torch.zeros(len(kept[0]), dtype=torch.float64))
    total, count = torch.zeros_like(mass), torch.zeros_like(mass)
    for tensor in kept:
        agrees = (torch.sign(tensor) == torch.sign(mass)) & (mass != 0)
        total += torch.where(agrees, tensor, torch.zeros_like(tensor))
        count += agrees
    return (coefficient * (total / count.clamp(min=1) if aggregate == "mean" else total)).to(
        kept[0].dtype
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-40, 1e30])
def test_ties_has_the_bits_of_the_readable_rule(dtype, scale):
    draw = generator(0, "fast rule", str(dtype), str(scale))
    for trial in range(60):
        tasks, entries = (int(torch.randint(1, most, (), generator=draw)) for most in (6, 40))
        group = [torch.randn(entries, generator=draw, dtype=dtype) for _ in range(tasks)]
        group = [
            scale * (2 * tensor).round() if trial % 2 else scale * tensor for tensor in group
        ]  # equal entries that cancel out
        least = [
            float(tensor.abs().sort().values[int(torch.randint(entries, (), generator=draw))])
            for tensor in group
        ]
        before = [tensor.clone() for tensor in group]
        for how in (
            {"coefficient": 0.3, "aggregate": "sum"},
            {"coefficient": -0.5, "aggregate": "mean"},
        ):
            fast, plain = ties_tensor(group, least, **how), readable_ties(group, least, **how)
            assert fast.dtype == plain.dtype and torch.equal(
                fast.view(torch.uint8), plain.view(torch.uint8)
            )
        assert all(torch.equal(tensor, was) for tensor, was in zip(group, before)), (
            "the vectors themselves stay as they were"
        )


def test_ties_keeps_the_share_asked_for():
    (v,) = random_vectors(1, a=(100, 100), b=(777,))
    assert ties([v], density=0.2).density() == pytest.approx(0.2, abs=1 / v.numel())


def test_ties_agrees_with_the_flattened_way():
    # Written out over whole flat vectors, as the published code lines do it.
    group = random_vectors(4, a=(40, 50), b=(333,))
    stack = torch.stack([v.flat() for v in group])
    threshold = stack.abs().sort(dim=1, descending=True).values[:, round(0.2 * stack.shape[1]) - 1]
    kept = torch.where(stack.abs() >= threshold[:, None], stack, torch.zeros(()))
    agree = torch.where(torch.sign(kept) == torch.sign(kept.sum(0)), kept, torch.zeros(()))
    merged = ties(group, coefficient=0.3, density=0.2)
    assert torch.allclose(merged.flat(), 0.3 * agree.sum(0), atol=1e-6)


@pytest.mark.parametrize("name", ["average", "task_arithmetic", "ties"])
def test_the_order_of_tasks_does_not_matter(name):
    group = random_vectors(5)
    assert close(merge(name, group), merge(name, group[::-1]))


def test_task_arithmetic_identities():
    group = random_vectors(4)
    assert close(task_arithmetic(group, coefficient=1 / 4), average(group))
    assert equal(task_arithmetic(group[:1], coefficient=1.0), group[0])
    assert task_arithmetic(group, coefficient=0.0).norm() == 0
    assert values(task_arithmetic([vector(1, 2), vector(3, -2)], coefficient=0.5)) == [2, 0]
    assert close(task_arithmetic(group), 0.3 * sum(group))


def test_average_of_copies_is_exactly_the_copy():
    (v,) = random_vectors(1)
    for count in (1, 3, 7):
        assert equal(average([v] * count), v)


@pytest.mark.parametrize("name", ["coefficient", "density"])
def test_average_has_no_parameter_and_a_profiles_settings_are_not_handed_to_it(name):
    with pytest.raises(BvError, match=f"unknown parameter of 'average' '{name}'"):
        merge("average", random_vectors(3), **{name: 0.3})
    settings = {"coefficient": 0.5, "density": 0.2}
    assert merging["average"].accepts(settings) == {}
    assert merging["task_arithmetic"].accepts(settings) == {"coefficient": 0.5}
    assert merging["ties"].accepts(settings) == settings


def test_declared_parameters():
    assert {name: dict(merging[name].parameters) for name in data_free()} == {
        "average": {},
        "task_arithmetic": {"coefficient": 0.3},
        "ties": {"coefficient": 0.3, "density": 0.2, "aggregate": "sum"},
        "dare": {"coefficient": 0.3, "drop": 0.5, "seed": 0},
        "iso_c": {"strength": 1.0},
        "tsv_merge": {"strength": 1.0},
    }
    assert set(sbv_rule) >= {"mean", "sum", "sign_consistent"}


def matrices(*tensors):
    """One task vector for each tensor, under the name w."""
    return [TaskVector({"w": tensor}) for tensor in tensors]


def test_dare_without_dropping_is_task_arithmetic_and_keeps_the_mean():
    group = random_vectors(3)
    assert equal(merge("dare", group, drop=0.0), merge("task_arithmetic", group))
    (one,) = matrices(torch.ones(200, 500))
    dropped = merge("dare", [one], coefficient=1.0, drop=0.8)
    assert set(dropped.tensors["w"].unique().tolist()) == {0.0, 5.0} or dropped.tensors[
        "w"
    ].unique().tolist() == pytest.approx([0, 5])
    assert dropped.tensors["w"].mean().item() == pytest.approx(
        1, abs=0.03
    )  # four standard errors are 0.025
    assert equal(merge("dare", group, seed=1), merge("dare", group, seed=1))
    assert not equal(merge("dare", group, seed=1), merge("dare", group, seed=2))
    with pytest.raises(BvError, match="drop of 'dare' is a share"):
        merge("dare", group, drop=1.0)


def test_iso_c_has_equal_singular_values_with_the_mean_of_the_sums():
    group = matrices(*torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(merge("iso_c", group).tensors["w"])
    mean = torch.linalg.svdvals(sum(v.tensors["w"] for v in group)).mean()
    torch.testing.assert_close(values, mean.expand(4))
    torch.testing.assert_close(
        merge("iso_c", group[::-1]).tensors["w"], merge("iso_c", group).tensors["w"]
    )
    bias = matrices(torch.ones(3), 3 * torch.ones(3))
    assert merge("iso_c", bias).tensors["w"].tolist() == [2, 2, 2] and merge(
        "tsv_merge", bias
    ).tensors["w"].tolist() == [2, 2, 2]


def test_tsv_merge_gives_one_task_back_and_adds_orthogonal_ones_at_full_strength():
    one = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(merge("tsv_merge", matrices(one)).tensors["w"], one)
    left, right = torch.zeros(4, 4), torch.zeros(4, 4)
    left[:2, :2], right[2:, 2:] = torch.tensor([[3.0, 0], [0, 1]]), torch.tensor([[0, 2.0], [5, 0]])
    torch.testing.assert_close(merge("tsv_merge", matrices(left, right)).tensors["w"], left + right)


def test_merging_gives_a_task_vector_and_sbv_a_backdoor_vector():
    bvs, taus = random_vectors(2, BackdoorVector), random_vectors(2)
    for name in data_free():
        assert type(merge(name, bvs)) is TaskVector
    for name in sbv_rule:
        assert type(merge_backdoors(name, bvs)) is BackdoorVector
        assert type(merge_backdoors(name, [bvs[0], taus[1]])) is TaskVector


@pytest.mark.parametrize("name", ["mean", "sum", "sign_consistent"])
def test_sbv_of_one_bv_is_that_bv(name):
    (bv,) = random_vectors(1, BackdoorVector)
    assert equal(merge_backdoors(name, [bv]), bv)
    assert equal(merge_backdoors(name, [bv], density=0.3), bv.sparsify(0.3))


def test_sbv_of_identical_bvs():
    (bv,) = random_vectors(1, BackdoorVector)
    assert equal(merge_backdoors("sign_consistent", [bv] * 3), bv)
    assert equal(merge_backdoors("mean", [bv] * 3), bv)
    assert equal(merge_backdoors("sum", [bv] * 2), 2 * bv)


def test_sign_consistent_by_hand():
    # coordinate     0      1      2      3      4      5
    # BV_1           1      1      1      0      2     -1
    # BV_2           2      5     -1      0     -2     -2
    # BV_3           3     -3     -5      4      0     -6
    # majority       +3/3   +2/3   -2/3   +1/3   none   -3/3
    bvs = [vector(1, 1, 1, 0, 2, -1), vector(2, 5, -1, 0, -2, -2), vector(3, -3, -5, 4, 0, -6)]
    assert values(sign_consistent(bvs)) == [2, 0, 0, 0, 0, -3]
    assert values(sign_consistent(bvs, agreement=2 / 3)) == [2, 3, -3, 0, 0, -3]
    assert values(sign_consistent(bvs, agreement=0.1)) == [2, 3, -3, 4, 0, -3]
    # Then the top half of the six entries by magnitude; 3 is the third largest and ties are kept.
    half = merge_backdoors("sign_consistent", bvs, agreement=0.1, density=0.5)
    assert values(half) == [0, 3, -3, 4, 0, -3]


@pytest.mark.parametrize("agreement", [0, 1.1, -1])
def test_agreement_is_a_share(agreement):
    with pytest.raises(BvError, match="agreement"):
        sign_consistent([vector(1.0)], agreement=agreement)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda v: merge("tise", [v]), "unknown merging method 'tise': did you mean 'ties'"),
        (
            lambda v: merge("ties", [v], densty=0.2),
            "parameter of 'ties' 'densty': did you mean 'density'",
        ),
        (lambda v: merge("ties", [v], aggregate="men"), "did you mean 'mean'"),
        (lambda v: merge("ties", [v], density=20), "did you mean 0.2"),
        (lambda v: merge("ties", [v], density=0), "share between 0 and 1"),
        (lambda v: merge("ties", []), "the list of vectors is empty"),
        (lambda v: ties([]), "the list of vectors is empty"),
        (
            lambda v: merge("average", [v, {"w": torch.ones(2)}]),
            "vector 2 is a dict, not a TaskVector",
        ),
        (lambda v: merge("average", [v, vector(1, 2, 3)]), "'w' has shape"),
        (
            lambda v: merge("average", [v, TaskVector({"x": torch.ones(2)})]),
            "'w' is in vector 1 but not in",
        ),
        (
            lambda v: merge("average", [v, vector(1, float("nan"))]),
            "'w' has entries that are not finite",
        ),
        (lambda v: merge_backdoors("sign-consistent", [v]), "did you mean 'sign_consistent'"),
        (lambda v: merge_backdoors("mean", [v], agreement=1.0), "parameter of 'mean' 'agreement'"),
    ],
)
def test_errors_are_one_line(call, message):
    with pytest.raises(BvError) as caught:
        call(vector(1, 2))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_new_method_is_one_function():
    try:

        @merging("first")
        def first(vectors, *, coefficient=2.0):
            return coefficient * vectors[0]

        assert values(merge("first", [vector(1, 2)])) == [2, 4] and "first" in data_free()
        assert values(first(vectors=[vector(1, 2)], coefficient=1.0)) == [1, 2]
        assert dict(merging["first"].parameters) == {"coefficient": 2.0}
        with pytest.raises(BvError, match="already registered"):
            merging("first")(lambda vectors: vectors[0])
        with pytest.raises(BvError, match="empty"):
            first([])
        with pytest.raises(BvError, match="empty"):
            first(vectors=[])
    finally:
        merging.without("first")
