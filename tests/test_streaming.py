"""Merging from file to file: the bits of the in-memory merge, in little memory, and nothing
half-written."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from helpers import one_line
from safetensors.torch import save_file

from bvlib.core.errors import BadCheckpoint
from bvlib.core.rng import generator
from bvlib.core.vectors import TaskVector, magnitude_threshold
from bvlib.files.weights import card_of, load_weights, save_weights
from bvlib.merging import streaming
from bvlib.merging.registry import merge
from bvlib.merging.streaming import merge_files
from bvlib.merging.weight_file import DTYPES

SHAPES = {
    "conv.weight": (3, 5, 7),
    "scale": (),
    "nothing": (0, 4),
    "block.weight": (300, 301),
    "bias": (11,),
}  # one spans two blocks
COUNTERS = {
    "steps": torch.tensor(7),
    "mask": torch.tensor([True, False, True]),
    "ids": torch.arange(5, dtype=torch.int32),
}


def tower(seed, dtype=torch.float32, tied=False, start=None):
    """Random weights; `tied` ones move from `start` by few sizes only, so that magnitudes tie and
    sums cancel."""
    drawn = {
        key: torch.randn(shape, generator=generator(seed, key), dtype=torch.float64)
        for key, shape in SHAPES.items()
    }
    if start is not None:
        drawn = {
            key: start[key].double() + ((2 * value).round() / 64 if tied else value / 100)
            for key, value in drawn.items()
        }
    elif tied:
        drawn = {key: (8 * value).round() / 8 for key, value in drawn.items()}
    return {key: value.to(dtype) for key, value in drawn.items()} | COUNTERS


def towers(tasks=3, **how):
    base = tower(0, **how)
    return [base, *(tower(seed + 1, start=base, **how) for seed in range(tasks))]


def save(folder, models):
    """The models as files base.safetensors, 1.safetensors, ...: (base, list of the others)."""
    paths = [folder / f"{number or 'base'}.safetensors" for number in range(len(models))]
    for path, model in zip(paths, models, strict=True):
        save_file(model, path)
    return paths[0], paths[1:]


def in_memory(method, models, **parameters):
    return models[0] + merge(
        method, [TaskVector.between(model, models[0]) for model in models[1:]], **parameters
    )


def same_bytes(left, right):
    return left.keys() == right.keys() and all(
        left[key].dtype == right[key].dtype
        and left[key].shape == right[key].shape
        and torch.equal(
            left[key].reshape(-1).view(torch.uint8), right[key].reshape(-1).view(torch.uint8)
        )
        for key in left
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("tasks", [1, 4])
@pytest.mark.parametrize(
    "method, parameters",
    [
        ("average", {}),
        ("task_arithmetic", {}),
        ("task_arithmetic", {"coefficient": -1.7}),
        ("ties", {}),
        ("ties", {"density": 1}),
        ("ties", {"density": 1e-9}),
        ("ties", {"density": 0.999999}),
        ("ties", {"density": 0.5, "aggregate": "mean", "coefficient": 1.0}),
    ],
)
def test_the_bits_are_those_of_the_in_memory_merge(tmp_path, method, parameters, tasks, tied):
    models = towers(tasks, tied=tied)
    out = merge_files(
        method,
        *save(tmp_path, models),
        tmp_path / "made" / "out.safetensors",
        device="cpu",
        **parameters,
    )
    merged, card = load_weights(out)  # which checks the card's sha256
    assert same_bytes(merged, in_memory(method, models, **parameters))
    assert card["method"] == method and len(card["finetuned"]) == tasks


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "ties"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_rounded_once(tmp_path, method, dtype):
    models = towers(dtype=dtype)
    wide = [
        {key: value.float() if value.is_floating_point() else value for key, value in model.items()}
        for model in models
    ]
    expected = {
        key: value.to(models[0][key].dtype) for key, value in in_memory(method, wide).items()
    }
    assert same_bytes(
        load_weights(
            merge_files(method, *save(tmp_path, models), tmp_path / "out.safetensors", device="cpu")
        )[0],
        expected,
    )


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "ties"])
def test_float64_stays_float64(tmp_path, method):
    models = [
        {**model, "conv.weight": model["conv.weight"].float()}
        for model in towers(dtype=torch.float64)
    ]
    merged, _ = load_weights(
        merge_files(method, *save(tmp_path, models), tmp_path / "out.safetensors", device="cpu")
    )
    assert same_bytes(merged, in_memory(method, models))


def kept(folder, vector, density):
    """Sorted magnitudes of what TIES of this one task keeps, found by streaming."""
    start = {key: torch.zeros_like(value) for key, value in vector.items()}
    out = merge_files(
        "ties",
        *save(folder, [start, vector]),
        folder / "out.safetensors",
        device="cpu",
        check=False,
        density=density,
        coefficient=1.0,
    )
    return sorted(
        abs(float(x))
        for value in load_weights(out)[0].values()
        for x in value.reshape(-1)
        if x != 0
    )


def test_the_threshold_is_exact(tmp_path):
    draw = generator(0, "thresholds")
    for trial in range(90):
        many = int(torch.randint(2, 60, (), generator=draw))
        values = torch.randn(many, generator=draw, dtype=torch.float64) * 10.0 ** torch.randint(
            -42, 38, (), generator=draw
        )
        if trial % 3 == 0:
            values = (values / values.abs().max() * 2).round()  # ties, and zeros
        if trial % 3 == 1:  # neighbours that agree in all but the last bits
            values = 1 + torch.randint(0, 9, (many,), generator=draw) * 2.0**-23
        vector = {"a": values[1:], "b": values[0]}
        vector = vector if trial % 5 == 0 else {key: value.float() for key, value in vector.items()}
        density = max(1e-6, float(torch.rand((), generator=draw)))
        least = magnitude_threshold(vector, density)
        magnitudes = [abs(float(x)) for value in vector.values() for x in value.reshape(-1)]
        assert kept(tmp_path, vector, density) == sorted(
            x for x in magnitudes if x >= least and x > 0
        )


def test_more_threads_change_nothing_and_are_set_back(tmp_path, monkeypatch):
    models, before = towers(), torch.get_num_threads()
    files = save(tmp_path, models)
    try:
        torch.set_num_threads(3)
        merged, _ = load_weights(
            merge_files("ties", *files, tmp_path / "out.safetensors", device="cpu")
        )
        assert torch.get_num_threads() == 3 and same_bytes(merged, in_memory("ties", models))
        monkeypatch.setattr(streaming._Merge, "merged", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            merge_files("ties", *files, tmp_path / "out.safetensors", device="cpu")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_tensors_may_lie_in_another_order_in_every_file(tmp_path):
    models = towers(2)
    base, others = save(tmp_path, models)
    names = {dtype: name for name, dtype in DTYPES.items()}
    table, data = {}, b""
    for key in sorted(models[2], key=lambda key: key[::-1]):
        part = bytes(models[2][key].reshape(-1).view(torch.uint8).numpy())
        table[key] = {
            "dtype": names[models[2][key].dtype],
            "shape": list(models[2][key].shape),
            "data_offsets": [len(data), len(data) + len(part)],
        }
        data += part
    head = json.dumps(table).encode()
    others[1].write_bytes(len(head).to_bytes(8, "little") + head + data)
    merged, _ = load_weights(
        merge_files("ties", base, others, tmp_path / "out.safetensors", device="cpu")
    )
    assert same_bytes(merged, in_memory("ties", models))


def test_the_card_tells_what_was_merged_and_damaged_inputs_are_refused(tmp_path):
    models = towers(2)
    for name, model in zip(["base", "one", "two"], models, strict=True):
        save_weights(tmp_path / f"{name}.safetensors", model)
    files, out = (
        [tmp_path / f"{name}.safetensors" for name in ("one", "two")],
        tmp_path / "out.safetensors",
    )
    merge_files("ties", tmp_path / "base.safetensors", files, out, device="cpu")
    card = json.loads(card_of(out).read_text())
    assert (
        card["parameters"] == {"coefficient": 0.3, "density": 0.2, "aggregate": "sum"}
        and card["kind"] == "merged"
    )
    assert [told["file"] for told in (card["base"], *card["finetuned"])] == [
        "base.safetensors",
        "one.safetensors",
        "two.safetensors",
    ]
    assert card["finetuned"][1]["sha256"] == json.loads(card_of(files[1]).read_text())["sha256"]
    old = out.read_bytes()
    save_file(models[0], files[0])  # no longer what its card says
    with one_line("one.safetensors", "sha256 differs"):
        merge_files("average", tmp_path / "base.safetensors", files, out, device="cpu")
    assert out.read_bytes() == old and json.loads(card_of(out).read_text()) == card
    merge_files("average", tmp_path / "base.safetensors", files, out, device="cpu", check=False)


def change(key, value):
    return lambda model: model.update({key: value})


@pytest.mark.parametrize(
    "spoil, words",
    [
        (
            lambda model: model.pop("bias"),
            ["'bias' is in", "base.safetensors but not in", "2.safetensors"],
        ),
        (
            change("extra", torch.ones(2)),
            ["'extra' is in", "2.safetensors but not in", "base.safetensors"],
        ),
        (change("bias", torch.ones(12)), ["'bias' has shape (12,) in", "2.safetensors"]),
        (
            change("bias", torch.ones(11).half()),
            ["'bias' has dtype torch.float16 in", "2.safetensors"],
        ),
        (
            change("bias", torch.full((11,), torch.nan)),
            ["2.safetensors: tensor 'bias' has entries that are not finite"],
        ),
        (
            change("scale", torch.tensor(-torch.inf)),
            ["2.safetensors: tensor 'scale' has entries that are not finite"],
        ),
        (change("steps", torch.tensor(8)), ["'steps' is torch.int64 and differs", "2.safetensors"]),
        (
            change("bias", torch.ones(11, dtype=torch.complex64)),
            ["'bias' in", "2.safetensors is C64, which does not stream"],
        ),
    ],
)
@pytest.mark.parametrize(
    "method, parameters", [("average", {}), ("ties", {}), ("ties", {"density": 1.0})]
)
def test_what_does_not_fit_is_named_and_leaves_nothing(tmp_path, spoil, words, method, parameters):
    models = towers(2)
    spoil(models[2])
    base, others = save(tmp_path, models)
    before = set(tmp_path.iterdir())
    with one_line(*words):
        merge_files(method, base, others, tmp_path / "out.safetensors", device="cpu", **parameters)
    assert set(tmp_path.iterdir()) == before


def test_large_finite_entries_are_finite(tmp_path):
    models = [{"w": torch.zeros(9)}, {"w": torch.full((9,), 3e38)}]  # their float32 sum is not
    merged, _ = load_weights(
        merge_files(
            "task_arithmetic", *save(tmp_path, models), tmp_path / "out.safetensors", device="cpu"
        )
    )
    assert same_bytes(merged, in_memory("task_arithmetic", models))


def test_an_interrupted_merge_leaves_the_old_result(tmp_path, monkeypatch):
    files, out = save(tmp_path, towers()), tmp_path / "out.safetensors"
    merge_files("average", *files, out, device="cpu")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    merged, begun = streaming._Merge.merged, []

    def stop(self, span, combine):
        begun.append(span)
        if len(begun) > 2:
            raise KeyboardInterrupt
        return merged(self, span, combine)

    monkeypatch.setattr(streaming._Merge, "merged", stop)
    with pytest.raises(KeyboardInterrupt):
        merge_files("task_arithmetic", *files, out, device="cpu")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "method, parameters, words",
    [
        ("tise", {}, ["unknown merging method 'tise': did you mean 'ties'"]),
        ("dare", {}, ["'dare' does not stream", "average, task_arithmetic, ties"]),
        ("ties", {"densty": 0.2}, ["parameter of 'ties' 'densty': did you mean 'density'"]),
        ("ties", {"density": 20}, ["did you mean 0.2"]),
        ("ties", {"density": 0}, ["share between 0 and 1"]),
        ("ties", {"aggregate": "men"}, ["did you mean 'mean'"]),
        ("average", {"density": 0.3}, ["parameter of 'average' 'density'"]),
        ("average", {"coefficient": 0.3}, ["parameter of 'average' 'coefficient'"]),
    ],
)
def test_methods_and_parameters_are_checked_first(tmp_path, method, parameters, words):
    with one_line(*words):
        merge_files(
            method,
            tmp_path / "no.safetensors",
            [tmp_path / "none.safetensors"],
            tmp_path / "out.safetensors",
            **parameters,
        )


def test_files_are_checked_before_anything_is_made(tmp_path):
    base, others = save(tmp_path, towers(1))
    with one_line("nothing to merge"):
        merge_files("average", base, [], tmp_path / "out.safetensors")
    with one_line("base.safetensors is one of the files to merge"):
        merge_files("average", base, others, base)
    for finetuned, out in [
        ("model.pt", "out.safetensors"),
        ("1.safetensors", "out.bin"),
        ("missing.safetensors", "out.safetensors"),
    ]:
        with pytest.raises(BadCheckpoint, match="refused|no weight file"):
            merge_files("average", base, [tmp_path / finetuned], tmp_path / out)
    others[0].write_bytes(others[0].read_bytes()[:-1])
    with pytest.raises(BadCheckpoint, match="1.safetensors is cut short or no safetensors file"):
        merge_files("average", base, others, tmp_path / "out.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.safetensors", "base.safetensors"]


# VmHWM rather than getrusage's maximum: that one is handed down from the parent, here pytest with
# all it has loaded.
MEMORY = textwrap.dedent("""
    import sys
    from pathlib import Path
    import torch
    from bvlib.merging.streaming import merge_files
    def status(name):
        lines = open("/proc/self/status")
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    folder = Path(sys.argv[1])
    files = [folder / f"{number}.safetensors" for number in range(20)]
    torch.set_num_threads(2)
    for method in ("task_arithmetic", "ties"):
        small, out = folder / "small.safetensors", folder / "out.safetensors"
        merge_files(method, small, [small], out, device="cpu")
        open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
        before = status("VmRSS")
        merge_files(method, folder / "base.safetensors", files, out, device="cpu")
        print(method, status("VmHWM") - before)
""")


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="reads Linux's /proc")
def test_twenty_models_take_less_memory_than_four(tmp_path):
    shapes = {"a": (1000, 2500), "b": (2500, 1000), "c": (7,)}
    for name in ("base", "0", "1", "2"):  # 20 MB each
        save_file(
            {
                key: torch.randn(shape, generator=generator(0, name, key))
                for key, shape in shapes.items()
            },
            tmp_path / f"{name}.safetensors",
        )
    save_file({"a": torch.ones(3)}, tmp_path / "small.safetensors")
    for number in range(3, 20):
        os.link(tmp_path / f"{number % 3}.safetensors", tmp_path / f"{number}.safetensors")
    model = (tmp_path / "0.safetensors").stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    grown = {method: int(size) for method, size in map(str.split, done.stdout.splitlines())}
    assert grown.keys() == {"task_arithmetic", "ties"} and all(
        size < 4 * model for size in grown.values()
    ), grown


@pytest.mark.gpu
def test_on_a_gpu(tmp_path):
    models = towers()
    there = [{key: value.cuda() for key, value in model.items()} for model in models]
    for method in ("average", "task_arithmetic", "ties"):
        merged, _ = load_weights(
            merge_files(
                method, *save(tmp_path, models), tmp_path / "out.safetensors", device="cuda"
            )
        )
        assert same_bytes(
            merged, {key: value.cpu() for key, value in in_memory(method, there).items()}
        )
