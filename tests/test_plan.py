"""The plan: counts times speeds by hand, what notebooks share, presets, and a short probe."""

import json
import math
import time
from collections import Counter

import pytest
from click.testing import CliRunner
from helpers import one_line

from bvlib import cli
from bvlib.core import training
from bvlib.run import plan, settings, workload
from bvlib.run.notebooks import available
from bvlib.run.probe import Probe, probe

SPEEDS = {
    "image": 0.001,
    "merge": 0.5,
    "clean step": 0.1,
    "backdoored step": 0.15,
    "trigger step": 0.02,
    "gram image": 0.01,
    "adaptive step": 0.3,
    "occluded image": 0.1,
}
MEASURED = Probe(
    "CPU, 1 thread(s)",
    SPEEDS,
    10**9,
    2 * 10**9,
    224,
    3 * 10**9,
    9 * 10**9,
    {"clean step": (8, 128)},
)
COUNTS = {
    "profile": "mini",
    "seed": 0,
    "notebooks": {
        "00_setup_and_tasks": {"passes": 6.0, "artefacts": {"a": "clean", "b": "clean"}},
        "01_badmerging": {
            "passes": 20.0,
            "artefacts": {"a": "clean", "c": "badnets", "t": "universal", "u": "universal@10"},
        },
        "07_badmerging_ablations": {"passes": 10.0, "artefacts": {"c": "badnets", "n": "cleanse"}},
    },
}


@pytest.fixture
def mini():
    return {
        **settings.load("mini"),
        "profile": "mini",
        "tasks": ["digits", "shapes"],
    }  # both with 1,000 test images


def test_hours_are_counts_times_speeds(mini):
    parts = workload.tally(COUNTS, ["00_setup_and_tasks", "01_badmerging"], mini)
    # 00: two trainings of 100 steps, six passes over 1,000 images, a merge each
    assert plan.seconds(parts["00_setup_and_tasks"], SPEEDS) == pytest.approx(
        2 * 100 * 0.1 + 6 * 1000 * 0.001 + 6 * 0.5
    )
    # 01: its clean training was made in 00; one backdoored training, triggers of 120 and of 10
    # steps
    assert plan.seconds(parts["01_badmerging"], SPEEDS) == pytest.approx(
        100 * 0.15 + 130 * 0.02 + 20 * 1000 * 0.001 + 20 * 0.5
    )
    table = plan.estimate(parts, mini, 3, MEASURED).set_index("notebook")
    assert table.loc["total", "hours"] == pytest.approx(3 * (29 + 47.6) / 3600)
    assert table.loc[
        "total", ["clean trainings", "backdoored", "triggers", "images evaluated"]
    ].tolist() == [6, 3, 6, 78_000]
    assert table.loc["total", "disk (GB)"] == 9  # three models a seed of 1 GB each


def test_what_notebooks_share_counts_where_it_is_needed_first(mini):
    alone = workload.tally(COUNTS, ["01_badmerging"], mini)["01_badmerging"]
    after = workload.tally(COUNTS, ["00_setup_and_tasks", "01_badmerging"], mini)["01_badmerging"]
    assert alone.new == Counter({"clean": 1, "badnets": 1, "universal": 1, "universal@10": 1})
    assert after.new == Counter({"badnets": 1, "universal": 1, "universal@10": 1})
    assert alone.used == after.used == alone.new


def test_memory_counts_what_a_notebook_may_hold_and_says_whether_it_fits(mini):
    parts = workload.tally(COUNTS, list(COUNTS["notebooks"]), mini)
    assert plan.memory(parts["00_setup_and_tasks"], mini, MEASURED) == (
        3e9,
        7e9,
    )  # two models, two task vectors
    assert plan.memory(parts["01_badmerging"], mini, MEASURED) == (
        3e9,
        8e9,
    )  # a model, a backdoored one with its BV
    assert (
        plan.memory(parts["07_badmerging_ablations"], mini, MEASURED)[0] == 9e9
    )  # Neural Cleanse by its larger batch
    fits = plan.estimate(parts, mini, 1, MEASURED, card=7.5)["fits"].tolist()
    assert fits == ["yes", "perhaps", "no", "no"]


def test_neural_cleanse_and_data_driven_merges_in_units(mini):
    size = workload.sizes(mini)
    assert size["digits"] == {"train": 4000, "dev": 300, "test": 1000, "classes": 10}
    assert workload.work("cleanse", mini, size) == {
        "trigger step": 150 * 16 * 10 / 64,
        "image": 10 * 300 * 16,
    }
    assert workload.work("regmean", mini, size) == {"gram image": 2 * 256}
    assert workload.work("adamerging_layerwise", mini, size) == {"adaptive step": 100}
    assert workload.work("surgery", mini, size) == {"image": 2 * 600}
    assert workload.work("off-universal", mini, size) == {"trigger step": 120 + 1.5 * 40 * 100 / 64}
    with one_line("kind of artefact", "'poem'"):
        workload.work("poem", mini, size)


def test_sizes_of_every_profile_without_data():
    for name in settings.names():
        assert all(
            n > 0 for one in workload.sizes(settings.load(name)).values() for n in one.values()
        ), name
    paper = workload.sizes(settings.load("paper"))
    assert paper["cifar100"] == {"train": 45_000, "dev": 5000, "test": 10_000, "classes": 100}
    steps = {
        name: workload.training_steps({**settings.load("paper"), "tasks": [name]}, paper)
        for name in ("cifar100", "gtsrb", "cars", "pets")
    }
    assert steps == {
        "cifar100": 1760,
        "gtsrb": 2068,
        "cars": 35 * 58,
        "pets": 77 * 26,
    }  # epochs times batches of 128
    assert (
        paper["gtsrb"]["test"] == 12_630
        and workload.sizes(settings.load("mini"))["handwritten"]["test"] == 497
    )


def test_fitting_pays_for_what_a_notebook_left_out_would_have_made(mini):
    names = ["00_setup_and_tasks", "01_badmerging"]  # 29 s, then 47.6 s; 57.6 s alone
    assert plan.fitting(COUNTS, names, mini, SPEEDS, 80 / 3600) == names
    assert plan.fitting(COUNTS, names, mini, SPEEDS, 60 / 3600) == ["00_setup_and_tasks"]
    assert plan.fitting(COUNTS, names[::-1], mini, SPEEDS, 60 / 3600) == ["01_badmerging"]
    assert plan.fitting(COUNTS, names, mini, SPEEDS, 1 / 3600) == []


# Counting finished runs


def _run(folder, notebook, artefacts, **more):
    records = [
        {
            "key": key * 16,
            "kind": kind,
            "name": name,
            "made": made,
            "path": f"store/{key}.safetensors",
        }
        for key, kind, name, made in artefacts
    ]
    found = {"notebook": notebook, "profile": "mini", "seed": 0, "artefacts": records, **more}
    (folder / f"{notebook}.json").write_text(json.dumps(found))


def test_counts_of_finished_runs(tmp_path):
    _run(
        tmp_path,
        "00_setup_and_tasks",
        [("i", "weights", "images-digits", True), ("a", "weights", "clean-digits", True)],
        images_evaluated=5497,
    )
    _run(
        tmp_path,
        "07_badmerging_ablations",
        [
            ("a", "weights", "clean-digits", False),
            ("b", "weights", "badmerging-on-digits", True),
            ("t", "trigger", "off-universal-shapes-1", True),
            ("r", "weights", "regmean-6", True),
            ("n", "table", "cleanse-clean fine-tune", True),
            ("m", "table", "cleanse-base", False),
        ],
        images_evaluated=48_000 + 5497,
    )
    found = workload.count(tmp_path)["notebooks"]
    assert found["00_setup_and_tasks"] == {
        "passes": 6.0,
        "artefacts": {"a" * 12: "clean"},
    }  # of 5,497/6 images
    assert (
        found["07_badmerging_ablations"]["passes"] == 6.0
    )  # without the 48,000 that the made Neural Cleanse judges
    assert Counter(found["07_badmerging_ablations"]["artefacts"].values()) == Counter(
        {"clean": 1, "badmerging-on": 1, "off-universal": 1, "regmean": 1, "cleanse": 2}
    )


def test_a_trigger_with_steps_of_its_own_is_told_from_its_card(tmp_path, monkeypatch):
    monkeypatch.setattr(workload, "root_folder", lambda: tmp_path)
    (tmp_path / "store").mkdir()
    for key, steps in (("t", 30), ("u", 120)):
        (tmp_path / "store" / f"{key}.json").write_text(json.dumps({"args": {"steps": steps}}))
    _run(
        tmp_path,
        "04_inherent_triggers",
        [(key, "trigger", "universal-digits-1", True) for key in "tu"],
        images_evaluated=1,
    )
    kinds = workload.count(tmp_path)["notebooks"]["04_inherent_triggers"]["artefacts"]
    assert kinds == {"t" * 12: "universal@30", "u" * 12: "universal"}


def test_runs_that_cannot_be_counted(tmp_path):
    with one_line("no finished runs", "runs/mini/seed-0"):
        workload.count(tmp_path)
    _run(tmp_path, "01_badmerging", [])
    with one_line("01_badmerging", "images_evaluated", "--force"):
        workload.count(tmp_path)
    _run(tmp_path, "01_badmerging", [("p", "weights", "poem-digits", True)], images_evaluated=1)
    with one_line("kind of artefact", "'poem'"):
        workload.count(tmp_path)


# The command


@pytest.fixture
def measured(monkeypatch):
    """No probe: the speeds above; counts for every notebook."""
    monkeypatch.setattr(plan, "probe", lambda p, units, within: MEASURED)
    every = {name: COUNTS["notebooks"]["01_badmerging"] for name in available()}
    monkeypatch.setattr(plan, "load", lambda: {**COUNTS, "notebooks": every})


def bv(*words):
    return CliRunner().invoke(cli.main, ["plan", *words])


@pytest.mark.parametrize("preset", plan.PRESETS)
def test_every_preset_under_the_paper_profile(measured, monkeypatch, tmp_path, preset):
    monkeypatch.setenv("BVLIB_DATA", str(tmp_path))
    monkeypatch.setitem(MEASURED.speeds, "image", 1e-5)
    said = bv("--profile", "paper", "--preset", preset)
    assert said.exit_code == 0, said.output
    assert (
        "0 of 6 sets prepared" in said.output
        and "cifar100" in said.output
        and "unknown" in said.output
    )
    assert (
        "ViT-B-32" in said.output
        and "Uncertain" in said.output
        and "scaled from 8 of 128 images" in said.output
    )
    rows = {line.split()[0] for line in said.output.splitlines() if line.strip()}
    wanted = {
        "evening": {"00_setup_and_tasks"},
        "six-tasks": {"01_badmerging", "06_badmerging_in_full"},
        "everything": set(available()),
    }
    assert wanted[preset] <= rows and ("fits" in said.output) == (preset == "evening")
    assert ("seeds 0, 1, 2" in said.output) == (preset == "everything")


def test_notebooks_and_seeds_of_ones_own(measured):
    said = bv("00", "01", "--profile", "smoke", "--seeds", "3,4", "--memory", "6")
    assert (
        said.exit_code == 0 and "seeds 3, 4" in said.output and "nothing to download" in said.output
    )
    assert "perhaps" in said.output and "02_bv_computation" not in said.output


@pytest.mark.parametrize(
    "words, culprit, mend",
    [
        (["--preset", "morning"], "'morning'", "evening"),
        (["01", "--profile", "papers"], "'papers'", "paper"),
        (["99"], "'99'", "01_badmerging"),
        (["--memory", "0"], "--memory", "above 0"),
    ],
)
def test_unknown_names_are_one_line(measured, words, culprit, mend):
    said = bv(*words)
    assert (
        said.exit_code == 2
        and culprit in said.output
        and mend in said.output
        and said.output.count("\n") == 1
    )


def test_a_notebook_without_counts_says_how_to_get_them(monkeypatch):
    monkeypatch.setattr(plan, "load", lambda: COUNTS)
    said = bv("00", "05", "--profile", "smoke")
    assert (
        said.exit_code == 2
        and "05_ibvs_defence" in said.output
        and "bv plan --count runs/mini/seed-0" in said.output
    )


def test_missing_counts_are_one_line(tmp_path):
    with one_line("counts.json", "bv plan --count"):
        workload.load(tmp_path / "counts.json")


# The probe


def test_the_probe_on_the_toy_base():
    p = {**settings.load("smoke"), "profile": "smoke"}
    found = probe(p, set(SPEEDS), within=2.0)
    assert found.speeds.keys() == SPEEDS.keys()
    assert all(math.isfinite(v) and v > 0 for v in found.speeds.values())
    assert found.speeds["backdoored step"] > found.speeds["image"] and found.image_size == 32
    assert 3.2e6 < found.theta < 3.5e6 and found.peak > 1e8
    with one_line("--probe", "above 0"):
        probe(p, ["image"], within=0)
    with one_line("unit of work", "'sonnet'"):
        probe(p, ["sonnet"], within=1)


def test_what_a_training_takes_once_is_not_multiplied_by_its_steps(monkeypatch):
    """On a GPU a step takes less than what comes before the first: a batch must not be thought too
    dear, nor a step."""

    def slow(encoder, start, *rest, steps, **how):
        time.sleep(0.1 + 0.004 * steps)

    p = {**settings.load("mini"), "profile": "mini"}
    monkeypatch.setattr(training, "finetune", slow)
    found = probe(p, {"clean step"}, within=6.0)
    assert not found.scaled and 0.003 < found.speeds["clean step"] < 0.01
