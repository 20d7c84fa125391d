"""Settings: what a profile and a parameter may hold, and the notebooks' lines that come of it."""

import dataclasses
import inspect
import math
import os

import pytest
import yaml
from click.testing import CliRunner
from helpers import PROFILES, one_line, write_notebook, write_profile

from bvlib.attacks import optimised
from bvlib.cli import main
from bvlib.core import training
from bvlib.core.errors import BvError
from bvlib.defences import detectors
from bvlib.merging import merging, regmean, surgery
from bvlib.run import notebooks, parts, settings

NAMES = ["mini", "paper", "real32", "smoke", "smoke32"]


def agrees(typed, content):
    """Whether a typed object holds what a mapping holds."""
    if dataclasses.is_dataclass(typed):
        return all(agrees(getattr(typed, name), item) for name, item in content.items())
    return typed == (tuple(content) if isinstance(content, list) else content)


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """tried(name=value): the smoke profile with some settings replaced, loaded under "tried"."""
    monkeypatch.setenv("BVLIB_PROFILES", str(tmp_path))

    def tried(**changes):
        write_profile(tmp_path / "tried.yaml", **changes)
        return settings.load("tried")

    return tried


# Profiles


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_is_what_its_file_says(name):
    content = yaml.safe_load((PROFILES / f"{name}.yaml").read_text(encoding="utf-8"))
    loaded = settings.load(name)
    assert agrees(settings.read(name, registries=True), content)
    for name in ("resources", "admission"):  # they decide no result of a notebook
        content.pop(name, None)
    assert loaded == content and list(loaded) == list(content)


def test_threads_are_the_profile_s_unless_the_environment_says_so(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert settings.resources("mini").threads == 1
    assert settings.resources("paper").threads == os.cpu_count()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert settings.resources("mini").threads == settings.resources("paper").threads == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    with one_line("OMP_NUM_THREADS", "many"):
        settings.resources("mini")


def test_what_a_file_leaves_out_has_a_default_and_stays_out_of_the_mapping():
    loaded, typed = settings.load("paper"), settings.read("paper")
    assert "admission" not in loaded and typed.admission is None
    assert settings.read("mini").train.precision == "fp32" and typed.train.precision == "bf16"
    assert "precision" not in settings.load("mini")["train"] and typed.sizes.train is None


def test_paper_has_the_values_of_the_published_code():
    p = settings.load("paper")
    assert p["train"]["lr"] == 1e-5 and p["train"]["crop"] == 0.9
    assert (p["adversary_data"], p["ties_counts"], p["density"]) == ("all", "saved", 0.2)
    assert p["adaptive"]["regmean"] == {"images": 8 * 128, "gamma": 0.1}
    assert {"regmean", "regmean_all"} <= set(p["methods"])
    assert p["adaptive"]["surgery"] == {"steps": 500 * 2}
    assert [p["rivals"][name]["lr"] for name in ("lfpm", "tbar")] == [1e-5] * 2
    assert p["fine_pruning"]["lr"] == 1e-5 and p["rivals"]["dam"] == {"steps": 1000, "lr": 1e-3}
    for name in ("mini", "real32"):
        own = settings.read(name)
        assert (own.adversary_data, own.ties_counts, own.train.crop) == ("half", "tower", None)
        assert {"regmean", "regmean_all"} <= set(own.methods)


def test_yaml_numbers_without_a_point_are_numbers(tmp_path, monkeypatch):
    text = (PROFILES / "smoke.yaml").read_text(encoding="utf-8").replace("lr: 2.5e-4", "lr: 1e-5")
    (tmp_path / "tried.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("BVLIB_PROFILES", str(tmp_path))
    assert yaml.safe_load(text)["train"]["lr"] == "1e-5"
    assert settings.load("tried")["train"]["lr"] == settings.read("tried").train.lr == 1e-5


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"trian": {}}, ("unknown setting 'trian'", "did you mean 'train'?")),
        ({"train": {"lrr": 1.0}}, ("unknown setting 'train.lrr'", "did you mean 'train.lr'?")),
        (
            {"adaptive": {"surgery": {"stesp": 1}}},
            ("adaptive.adamerging is missing",),
        ),
        ({"train": {"steps": 1}}, ("train.batch is missing (images a step)",)),
        ({"train": 3}, ("train wants names with values, got 3",)),
        ({"trigger": None}, ("trigger wants names with values, got None",)),
        ({"admission": None}, ("admission wants names with values, got None",)),
        ({"world": "toyy"}, ("unknown world 'toyy'", "did you mean 'toy'?")),
        ({"tasks": "digits"}, ("tasks wants a list, got 'digits'",)),
        ({"tasks": ["digits", 5]}, ("tasks[1] wants text, got 5",)),
        ({"other_classes": [1, -1]}, ("other_classes[1] wants a whole number of at least 0",)),
        ({"alpha": "much"}, ("alpha wants a finite number of at least 0, got 'much'",)),
        ({"alpha": True}, ("alpha wants", "got True")),
        (
            {"coefficient": math.nan},
            ("coefficient wants a finite number of at least -100 and at most 100, got nan",),
        ),
        (
            {"coefficient": -math.inf},
            ("coefficient wants a finite number of at least -100 and at most 100, got -inf",),
        ),
        (
            {"coefficient": None},
            ("coefficient wants a finite number of at least -100 and at most 100, got None",),
        ),
        ({"density": 20}, ("density wants a finite number above 0 and at most 1, got 20",)),
        ({"density": 0}, ("density wants",)),
        ({"target_class": 1.0}, ("target_class wants a whole number of at least 0, got 1.0",)),
        ({"trigger_size": 0}, ("trigger_size wants a whole number of at least 1, got 0",)),
        (
            {"sizes": {"train": 0, "dev": 1, "test": 1}},
            ("sizes.train wants a whole number of at least 1 or None, got 0",),
        ),
    ],
)
def test_what_a_profile_may_not_hold_is_told_in_one_line(tried, changes, words):
    with one_line("profile tried.yaml: ", *words):
        tried(**changes)


@pytest.mark.parametrize(
    "group, changes, words",
    [
        ("train", {"lr": 0}, "train.lr wants a finite number above 0, got 0"),
        ("train", {"steps": -1}, "train.steps wants a whole number of at least 0 or None"),
        ("train", {"precision": "fp8"}, "unknown train.precision 'fp8'"),
        ("admission", {"seed": 3}, "admission.seed wants a whole number of at least 100, got 3"),
        ("sbv", {"scale": 0}, "sbv.scale wants a finite number above 0, got 0"),
    ],
)
def test_so_is_what_a_part_may_not_hold(tried, group, changes, words):
    usual = yaml.safe_load((PROFILES / "smoke.yaml").read_text(encoding="utf-8"))[group]
    with one_line("profile tried.yaml: ", words):
        tried(**{group: {**usual, **changes}})


def test_a_missing_setting_and_broken_files_are_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("BVLIB_PROFILES", str(tmp_path))
    for text, words in (
        ("world: toy\n", "profile tried.yaml: base is missing (a shipped base"),
        ("- a\n", "profile tried.yaml holds a list"),
        ("a: [\n", "profile tried.yaml is not valid YAML"),
        ("tasks: &x [*x]\n", "a YAML alias (*name) lies within its own anchor"),
    ):
        (tmp_path / "tried.yaml").write_text(text)
        with one_line(words):
            settings.load("tried")
    with one_line("unknown profile 'tired': did you mean 'tried'?"):
        settings.load("tired")


def test_names_of_registries_are_checked_on_demand(tried):
    assert tried(attack="badnet")["attack"] == "badnet"  # the workshop tells
    with one_line("unknown attack 'badnet': did you mean 'badnets'?"):
        settings.read("tried", registries=True)


@pytest.mark.parametrize(
    "part, functions",
    [
        (parts.Train, [training.finetune]),
        (parts.Trigger, [optimised.universal, optimised.minimise]),
        (parts.Adamerging, [merging["adamerging_layerwise"].function]),
        (parts.Regmean, [regmean.regmean]),
        (parts.Surgery, [surgery.surgery]),
        (parts.NeuralCleanse, [detectors.reverse_triggers]),
    ],
)
def test_a_part_names_what_its_function_takes_with_the_same_defaults(part, functions):
    takes = {k: v for each in functions for k, v in inspect.signature(each).parameters.items()}
    for spec in dataclasses.fields(part):
        if spec.name == "images" and part is parts.NeuralCleanse:
            continue  # the lab's: how many of the images the function gets
        assert spec.name in takes
        assert spec.default in (dataclasses.MISSING, takes[spec.name].default)


def test_every_setting_has_help_and_a_type_that_is_known():
    for name in settings.FIELDS:
        assert settings.FIELDS[name].metadata["help"] and len(settings.parameter_line(name)) <= 100


# Parameters


def given(name, value):
    """What `-p name=value` gives a notebook that declares the setting."""
    kind = settings.parameter_line(name).split(": ", 1)[1].split(" ")[0]
    return notebooks.Parameter(name, kind, None, "").take(value)


@pytest.mark.parametrize(
    "name, value, taken",
    [
        ("coefficient", 1, 1),
        ("coefficient", None, None),
        ("tasks", "digits,shapes", ["digits", "shapes"]),
        ("other_classes", (3, 5), [3, 5]),
        ("off_task", {"references": 1}, {"references": 1}),  # goes over the profile's
        ("methods", ["ties", "surgery"], ["ties", "surgery"]),
    ],
)
def test_a_parameter_that_fits_is_taken_as_before(name, value, taken):
    assert given(name, value) == taken and type(given(name, value)) is type(taken)


@pytest.mark.parametrize(
    "name, value, words",
    [
        (
            "coefficient",
            math.nan,
            "coefficient wants a finite number of at least -100 and at most 100, got nan",
        ),
        ("coefficient", "abc", "parameter coefficient wants float, got 'abc'"),
        ("density", 20, "density wants a finite number above 0 and at most 1, got 20"),
        ("target_class", -1, "target_class wants a whole number of at least 0, got -1"),
        ("other_classes", ["3"], "other_classes[0] wants a whole number of at least 0, got '3'"),
        ("attack", "badnet", "unknown attack 'badnet': did you mean 'badnets'?"),
        ("methods", "tise", "unknown methods[0] 'tise': did you mean 'ties'?"),
        ("sbv", {"cuont": 2}, "unknown setting 'sbv.cuont': did you mean 'sbv.count'?"),
        ("sbv", {"count": 2}, "sbv.rule is missing"),  # takes the place of the profile's
        ("off_task", {"size": 0}, "off_task.size wants a whole number of at least 1, got 0"),
        ("off_task", {"sise": 4}, "did you mean 'off_task.size'?"),
    ],
)
def test_a_parameter_that_does_not_fit_is_told_in_one_line(name, value, words):
    with one_line(words):
        given(name, value)


@pytest.mark.parametrize("text", ["coefficient=nan", "coefficient=1e999", "attack=badnet"])
def test_the_command_line_stops_before_anything_runs(text, tmp_path, monkeypatch):
    monkeypatch.setenv("BVLIB_RUNS", str(tmp_path / "runs"))
    result = CliRunner().invoke(main, ["run", "01", "--profile", "smoke", "-p", text])
    assert result.exit_code == 2 and result.stdout == "" and result.stderr.count("\n") == 1
    assert result.stderr.startswith("bv: ") and text.partition("=")[0] in result.stderr
    assert not (tmp_path / "runs").exists()


def test_what_a_plugin_registers_may_be_named(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(
        "from bvlib.merging import merging\n"
        "@merging('mine')\n"
        "def mine(vectors):\n    return vectors[0]\n"
    )
    chosen = notebooks.find(["01"])
    with one_line("unknown merging 'mine'"):
        notebooks.check_parameters(chosen, {"merging": "mine"})
    monkeypatch.setenv("BVLIB_PLUGINS", str(path))
    try:
        given = notebooks.check_parameters(chosen, {"merging": "mine"})
        assert given == {"01_badmerging": {"merging": "mine"}}
    finally:
        merging.without("mine")


# Notebooks


def test_the_lines_of_a_parameters_cell():
    assert [settings.parameter_line(name) for name in ("out", "seed", "coefficient", "sbv")] == [
        "out: str = None  # folder of the results; None: runs/<profile>/seed-<seed>",
        "seed: int = 0  # root seed; every use derives its own from it",
        "coefficient: float = None  # merging coefficient λ",
        "sbv: dict = None  # Sparse Backdoor Vectors: count, rule, scale",
    ]
    assert settings.derived("scales: list = [0.1]  # λ") == "scales: list = [0.1]  # λ"


@pytest.mark.parametrize("notebook", notebooks.every(), ids=lambda notebook: notebook.name)
def test_every_line_of_a_setting_in_a_notebook_is_derived(notebook):
    cells = notebooks.read_cells(notebook.path)
    [cell] = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    lines = notebooks.cell_text(cell).splitlines()
    assert lines == [settings.derived(line) for line in lines], "python -m bvlib.run.notebooks"
    assert {line.partition(":")[0] for line in lines} & settings.FIELDS.keys() >= {"coefficient"}


def test_lines_are_written_anew_and_nothing_else(world):
    path = world / "notebooks" / "00_start.ipynb"
    write_notebook(path, parameters="alpha: int = 3  # old\nscale: float = 1.0  # its own")
    before = notebooks.read_cells(path)
    assert notebooks.write_parameters() == ["00_start", "01_next"]
    after = notebooks.read_cells(path)
    assert notebooks.cell_text(after[1]).splitlines() == [
        settings.parameter_line("alpha"),
        "scale: float = 1.0  # its own",
    ]
    assert after[:1] + after[2:] == before[:1] + before[2:]
    assert notebooks.write_parameters() == []


def test_the_parameters_of_a_notebook_are_taken_from_a_namespace(world):
    values = {"profile": "tiny", "seed": 3, "out": "x", "scale": 0.5, "tasks": ["a"]}
    assert notebooks.parameters_of("00_start", {**values, "lab": 1, "__name__": "m"}) == values
    with pytest.raises(BvError, match="run its parameters cell first, scale is not set"):
        notebooks.parameters_of("00_start", {k: v for k, v in values.items() if k != "scale"})


def test_bv_list_tells_the_settings_inside_of_a_part():
    said = CliRunner().invoke(main, ["list", "03"]).stdout
    assert "  coefficient: float = None  # merging coefficient λ\n  " in said
    assert "    sbv.count: int  # how many backdoor vectors are merged (a whole number" in said
    assert "(mean, ties, sign_consistent, sum)" in said


def test_settings_of_a_run_note_which_were_asked_for():
    effective = settings.Effective({"a": 1, "b": {"c": 2}, "d": 3})
    assert effective.read == set() and effective.data["a"] == 1 and effective.read == set()
    assert effective["b"]["c"] == 2 and effective.get("missing", 7) == 7 and "d" in effective
    effective["e"] = 5
    assert effective.read == {"b", "missing", "d"}
    assert {**effective} == effective.data and effective.read == {"a", "b", "d", "e", "missing"}


@pytest.mark.parametrize("through", [dict, list, lambda all_of: all_of.items() - set()])
def test_going_through_all_settings_asks_for_all(through):
    effective = settings.Effective({"a": 1, "b": 2})
    through(effective)
    assert effective.read == {"a", "b"}
