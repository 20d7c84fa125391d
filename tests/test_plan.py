"""The plan: counts times speeds by hand, what notebooks share, presets, and a short probe."""

import math
import time

import pytest
import yaml
from click.testing import CliRunner
from helpers import one_line

from bvlib import cli
from bvlib.core import training
from bvlib.run import plan, settings
from bvlib.run.notebooks import available
from bvlib.run.plan import Probe, probe

SPEEDS = {"clean": 0.1, "backdoored": 0.15, "trigger": 0.02, "image": 0.001}
MEASURED = Probe(SPEEDS, 10**9, 3e9, 8)
SHORT = ["00_setup_and_tasks", "01_badmerging"]
TABLE = """
worth:
  clean: {clean: 1, models: 1, held: 1}
  backdoored: {backdoored: 1, models: 1, held: 2}
  trigger: {trigger: 1}
  trigger@60: {trigger: 0.5}
  off-trigger: {trigger: 2}
  cleanse: {trigger: 3, image: 5}
passes: {00_setup_and_tasks: 6, 01_badmerging: 20}
uses:
  00_setup_and_tasks: {clean: [1, 2]}
  01_badmerging: {clean: [1], backdoored: [1], trigger: [1], trigger@60: [1], cleanse: [1, 2]}
"""


@pytest.fixture
def mini(tmp_path, monkeypatch):
    """Profile mini with two tasks of 1,000 test images, and counts for two notebooks."""
    (tmp_path / "plan.yaml").write_text(TABLE)
    monkeypatch.setattr(plan, "COUNTS", tmp_path / "plan.yaml")
    return {**settings.load("mini"), "tasks": ["digits", "shapes"]}


def test_hours_are_counts_times_speeds_and_what_is_shared_is_made_once(mini):
    table = plan.estimate(SHORT, mini, MEASURED)
    # 00: two trainings of 100 steps, six passes over 1,000 images. 01: its clean training is there;
    # a backdoored training, triggers of 120 and of 60 steps, six triggers' worth, thirty passes
    assert table["hours"].tolist() == pytest.approx([26 / 3600, (15 + 7.5 * 2.4 + 30) / 3600])
    numbers = ["clean", "backdoored", "trigger", "other", "images", "disk (GB)"]
    assert table[numbers].to_numpy().tolist() == [[2, 0, 0, 0, 6000, 2], [0, 1, 2, 2, 30_000, 1]]
    alone = plan.estimate(SHORT[1:], mini, MEASURED)
    assert alone["clean"].tolist() == [1]


def test_memory_counts_what_a_notebook_may_hold(mini):
    table = plan.estimate(SHORT, mini, MEASURED)
    assert table["memory (GB)"].tolist() == [3, 3]
    assert table["at most"].tolist() == [7, 8]  # models, a backdoor's vector, those of two tasks


def test_a_notebook_without_counts_says_how_to_get_them(mini):
    with one_line("02_bv_computation", "benchmarks/plan.py --count"):
        plan.estimate(["02_bv_computation"], mini, MEASURED)


def test_the_committed_counts_are_of_every_notebook_and_known_kinds():
    table = yaml.safe_load(plan.COUNTS.read_text(encoding="utf-8"))
    assert set(table["uses"]) == set(table["passes"]) == set(available())
    assert {kind for uses in table["uses"].values() for kind in uses} <= set(table["worth"])
    units = {unit for worth in table["worth"].values() for unit in worth}
    assert units == {*SPEEDS, "models", "held"}


def test_sizes_of_every_profile_without_data():
    for name in settings.names():
        assert all(n > 0 for n in plan.sizes(settings.load(name))), name
    paper = settings.load("paper")
    steps = {
        name: plan.sizes({**paper, "tasks": [name]})[1]
        for name in ("cifar100", "gtsrb", "cars", "pets", "imagenet100")
    }
    assert steps["cifar100"] == 1760 and steps["gtsrb"] == 2068  # epochs times batches of 128
    assert steps["cars"] == 35 * 58 and steps["pets"] == 77 * 26 and steps["imagenet100"] > 2000
    assert plan.sizes({**paper, "tasks": ["gtsrb"]})[0] == 12_630
    assert plan.sizes(settings.load("mini")) == (5497 / 6, 100)


# The command


@pytest.fixture
def measured(monkeypatch):
    """No probe: the speeds above, and fast images."""
    fast = MEASURED._replace(speeds={**SPEEDS, "image": 1e-5})
    monkeypatch.setattr(plan, "probe", lambda p, within: fast)


def bv(*words):
    return CliRunner().invoke(cli.main, ["plan", *words])


@pytest.mark.parametrize("preset", plan.PRESETS)
def test_every_preset_under_the_paper_profile(measured, preset):
    said = bv("--profile", "paper", "--preset", preset)
    assert said.exit_code == 0, said.output
    assert "ViT-B-32" in said.output and "8 of 128 images" in said.output
    rows = {line.split()[0] for line in said.output.splitlines() if line.strip()}
    wanted = {
        "evening": {"00_setup_and_tasks", "01_badmerging"},
        "six-tasks": {"01_badmerging", "06_badmerging_in_full"},
        "everything": set(available()),
    }
    assert wanted[preset] <= rows and ("fits" in said.output) == (preset == "evening")
    assert ("seeds 0, 1, 2" in said.output) == (preset == "everything")


def test_notebooks_and_seeds_of_ones_own(measured):
    said = bv("00", "01", "--profile", "smoke", "--seeds", "3,4", "--memory", "6")
    assert said.exit_code == 0 and "seeds 3, 4" in said.output and "perhaps" in said.output
    assert "02_bv_computation" not in said.output and "Uncertain" in said.output
    assert "ViT-L-14" in bv("00", "--profile", "paper", "--base", "ViT-L-14").output


@pytest.mark.parametrize(
    "words, culprit, mend",
    [
        (["--preset", "morning"], "'morning'", "evening"),
        (["01", "--profile", "papers"], "'papers'", "paper"),
        (["99"], "'99'", "01_badmerging"),
    ],
)
def test_unknown_names_are_one_line(measured, words, culprit, mend):
    said = bv(*words)
    assert said.exit_code == 2 and said.output.count("\n") == 1
    assert culprit in said.output and mend in said.output


def test_too_few_hours_and_nonsense_numbers(measured, monkeypatch):
    monkeypatch.setitem(plan.PRESETS, "evening", {"hours": 0.04})
    said = bv("--preset", "evening").output
    assert "00_setup_and_tasks " in said and "0.04 hours are too few: 02_bv_computation" in said
    monkeypatch.setitem(plan.PRESETS, "evening", {"hours": 1e-6})
    assert bv("--preset", "evening").output == "bv: 1e-06 hours are too few here: name notebooks\n"
    for words in (["--memory", "0"], ["--probe", "-1"]):
        assert bv(*words).exit_code == 2


# The probe


def test_the_probe_on_the_toy_base():
    found = probe(settings.load("smoke"), within=2.0)
    assert found.speeds.keys() == SPEEDS.keys()
    assert all(math.isfinite(v) and v > 0 for v in found.speeds.values())
    assert found.speeds["backdoored"] > found.speeds["image"]
    assert 3.2e6 < found.theta < 3.5e6 and found.peak > 1e8 and 2 <= found.few <= 32


@pytest.mark.slow
def test_a_real_architecture_has_random_weights():
    p = settings.load("paper")
    p |= {"train": {**p["train"], "batch": 4, "precision": "fp32"}}
    found = probe(p, within=1e-3)
    assert found.few == 4 and 3.4e8 < found.theta < 3.6e8 and found.peak > 4 * found.theta


def test_what_a_training_takes_once_is_not_multiplied_by_its_steps(monkeypatch):
    """On a GPU a step takes less than what comes before the first."""

    def slow_start(*rest, steps, **how):
        time.sleep(0.1 + 0.004 * steps)

    monkeypatch.setattr(training, "finetune", slow_start)
    found = probe(settings.load("mini"), within=6.0)
    assert found.few == 128 and 0.003 < found.speeds["clean"] < 0.01
