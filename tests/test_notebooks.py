"""The notebooks: their form, and all of them run in order in the smoke profile."""

import ast
import json
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import badly_drawn, hard_to_read, run_notebooks

from bvlib.cli import main
from bvlib.core.versions import recipe as version_of
from bvlib.report import claims, golden, summary
from bvlib.report.redraw import redraw
from bvlib.run import notebooks, settings
from bvlib.study import figures

NAMES = [
    "00_setup_and_tasks",
    "01_badmerging",
    "02_bv_computation",
    "03_sbv_attack",
    "04_inherent_triggers",
    "05_ibvs_defence",
    "06_badmerging_in_full",
    "07_badmerging_ablations",
    "08_vectors_in_full",
    "09_defences_in_full",
    "10_interactive",
]
BESIDE = NAMES[8:10]
LONG = NAMES[6:10]  # run only when they are named
COMMON = {
    "profile",
    "seed",
    "tasks",
    "adversary",
    "target_class",
    "attack",
    "trigger_size",
    "merging",
    "coefficient",
    "out",
}
TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}
each_notebook = pytest.mark.parametrize("name", NAMES)


def path_of(name):
    return notebooks.notebooks_folder() / f"{name}.ipynb"


def code_cells(name):
    cells = json.loads(path_of(name).read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def parameters(name):
    """{parameter: (type, text of the default, comment)}; every line of the cell must be one of
    them."""
    [cell] = [cell for cell in code_cells(name) if "parameters" in cell["metadata"].get("tags", [])]
    lines = [
        re.fullmatch(r"(\w+): (\w+) = (.+?) +# (\S.*)", line) for line in source(cell).splitlines()
    ]
    assert all(lines), f"{name}: one `name: type = literal  # comment` a line"
    return {line[1]: line.groups()[1:] for line in lines}


# Form


def test_the_notebooks_are_those_of_the_study():
    assert notebooks.available() == NAMES
    assert [each.name for each in notebooks.find(None)] == [
        name for name in NAMES if name not in LONG
    ]


@each_notebook
def test_the_parameters_cell_holds_annotated_literals(name):
    for parameter, (kind, default, _) in parameters(name).items():
        value = ast.literal_eval(default)
        assert value is None or type(value) is TYPES[kind], parameter


@each_notebook
def test_what_a_profile_sets_defaults_to_none_and_profiles_cover_it(name):
    of_profiles = {profile: settings.load(profile).keys() for profile in settings.names()}
    defaults = {
        parameter: ast.literal_eval(default)
        for parameter, (_, default, _) in parameters(name).items()
    }
    assert defaults.keys() >= COMMON and defaults["profile"] == "mini" and defaults["seed"] == 0
    unset = {parameter for parameter, value in defaults.items() if value is None} - {"out"}
    for keys in of_profiles.values():
        assert unset == defaults.keys() & keys


@each_notebook
def test_every_parameter_is_used(name):
    """The lab takes those that a profile knows from the notebook's globals; the others are the
    notebook's own, and its cells name them."""
    code = [
        ast.parse(source(cell)) for cell in code_cells(name) if not cell["metadata"].get("tags")
    ]
    used = {node.id for tree in code for node in ast.walk(tree) if isinstance(node, ast.Name)}
    own = parameters(name).keys() - settings.load("mini").keys() - {"profile", "seed", "out"}
    assert own <= used


@each_notebook
def test_no_line_of_code_is_longer_than_100_columns(name):
    cells = [
        cell for cell in code_cells(name) if "parameters" not in cell["metadata"].get("tags", [])
    ]
    known = settings.load("mini").keys()  # the lines of what a profile sets are not the notebook's
    lines = [line for cell in cells for line in source(cell).splitlines()]
    [cell] = [cell for cell in code_cells(name) if cell not in cells]
    lines += [line for line in source(cell).splitlines() if line.partition(":")[0] not in known]
    assert [line for line in lines if len(line) > 100] == []


@each_notebook
def test_papermill_tells_each_parameter_with_type_and_help(name):
    from papermill.cli import papermill

    result = CliRunner().invoke(papermill, ["--help-notebook", str(path_of(name))])
    said = "".join(result.output.split())  # lines are wrapped anywhere
    for parameter, (kind, default, comment) in parameters(name).items():
        assert "".join(f"{parameter}: {kind} (default {default}) {comment}".split()) in said


@each_notebook
def test_code_cells_are_short_and_one_imports(name):
    cells = [
        cell for cell in code_cells(name) if "parameters" not in cell["metadata"].get("tags", [])
    ]
    assert max(len(source(cell).splitlines()) for cell in cells) <= 14
    importing = [
        cell
        for cell in code_cells(name)
        if any(
            isinstance(node, (ast.Import, ast.ImportFrom))
            for node in ast.walk(ast.parse(source(cell)))
        )
    ]
    assert len(importing) == 1 and f'Lab.start("{name}", globals())' in source(importing[0])


@each_notebook
def test_committed_without_outputs_for_the_kernel_python3(name):
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in code_cells(name)
    )
    assert (
        json.loads(path_of(name).read_text(encoding="utf-8"))["metadata"]["kernelspec"]["name"]
        == "python3"
    )


@pytest.mark.parametrize(
    "given, words",
    [
        ("tpyo=1", "unknown parameter 'tpyo': did you mean "),
        ("trigger_sise=4", "did you mean 'trigger_size'?"),
    ],
)
def test_a_misspelt_parameter_gives_one_line(given, words):
    result = CliRunner().invoke(main, ["run", "--profile", "smoke", "-p", given])
    assert result.exit_code == 2 and result.stdout == "" and result.stderr.count("\n") == 1
    assert (
        result.stderr.startswith("bv: ")
        and words in result.stderr
        and "trigger_size" in result.stderr
    )


# All of them, run


def run(names=NAMES):
    return run_notebooks(names, "smoke")


def all_of(names, folder, beside=()):
    """These notebooks run once, in a run folder and a store of their own: .records, .out, .store,
    .results; those in ``beside`` in a process of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BVLIB_RUNS", str(folder / "runs"))
        patch.setenv("BVLIB_STORE", str(folder / "store"))
        patch.setenv("OMP_NUM_THREADS", "1")  # the golden values are of one thread
        command = [sys.executable, "-m", "bvlib.cli", "run", *beside, "--profile", "smoke"]
        other = beside and subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        records = run([name for name in names if name not in beside])
        if other:
            said, _ = other.communicate()
            assert other.returncode == 0, said.decode()
        out, store = records[0].out, folder / "store"
        results = {n: json.loads((out / f"{n}.json").read_text(encoding="utf-8")) for n in names}
        yield SimpleNamespace(records=records, out=out, store=store, results=results)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """All notebooks; the two longest beside the others, which halves the wait on two cores."""
    yield from all_of(NAMES, tmp_path_factory.mktemp("smoke"), BESIDE)


def numbers(out):
    """{path: bytes} of every table and of the data of every figure."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/*.csv"))}


def test_the_golden_values_are_met(smoke):
    """Bits on the processor and versions that made them, near elsewhere: no result has moved."""
    differ = golden.compare(golden.read(golden.folder(), "smoke"), golden.collect(smoke.out))
    assert differ == []


def test_all_run_in_order(smoke):
    assert [record.name for record in smoke.records if record.reason] == [
        name for name in NAMES if name not in BESIDE
    ]
    for name in NAMES:
        cells = json.loads((smoke.out / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        done = [cell for cell in cells if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in done] == list(range(1, len(done) + 1))


@each_notebook
def test_figures_are_picture_data_and_provenance(smoke, name):
    outputs = [path for path in smoke.results[name]["outputs"] if path.startswith("figures/")]
    stems = {path.rpartition(".")[0] for path in outputs}
    assert stems and sorted(outputs) == sorted(
        stem + end for stem in stems for end in (".csv", ".json", ".png")
    )
    for stem in stems:
        assert (smoke.out / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert len(pd.read_csv(smoke.out / f"{stem}.csv"))
        provenance = json.loads((smoke.out / f"{stem}.json").read_text(encoding="utf-8"))
        assert provenance["notebook"] == name and provenance["caption"]
        assert (
            provenance["parameters"]["profile"] == "smoke"
            and provenance["parameters"]["trigger_size"] == 6
        )
        assert version_of(f"notebook:{name}") in provenance["recipes"]


def test_every_figure_but_those_of_images_is_drawn_again_from_its_table(smoke, monkeypatch):
    pictures = {path.stem: path.read_bytes() for path in (smoke.out / "figures").glob("*.png")}
    shown, save = {}, figures.save_picture
    monkeypatch.setattr(
        figures, "save_picture", lambda f, png: shown.update({png: f}) or save(f, png)
    )
    drawn = [redraw(path) for path in sorted((smoke.out / "figures").glob("*.json"))]
    of_images = {"tasks", "triggers", "attention", "interactive", "interactive_places"}
    assert {path.stem for path in drawn if path} == pictures.keys() - of_images
    for path in filter(None, drawn):
        assert path.read_bytes() == pictures[path.stem], path.stem
        assert not hard_to_read(shown[path]) + badly_drawn(shown[path]), path.stem


@each_notebook
def test_tables_are_there_with_their_provenance(smoke, name):
    tables = [path for path in smoke.results[name]["outputs"] if path.startswith("tables/")]
    stems = {path.rpartition(".")[0] for path in tables}
    assert stems and sorted(tables) == sorted(
        stem + end for stem in stems for end in (".csv", ".json")
    )
    for stem in stems:
        assert len(pd.read_csv(smoke.out / f"{stem}.csv"))
        assert (
            json.loads((smoke.out / f"{stem}.json").read_text(encoding="utf-8"))["notebook"] == name
        )


@each_notebook
def test_the_run_says_what_came_out(smoke, name):
    result = smoke.results[name]
    assert (result["notebook"], result["profile"], result["seed"]) == (name, "smoke", 0)
    assert (
        result["headline"] and result["measures"] and result["artefacts"] and result["seconds"] > 0
    )
    for number in result["headline"].values():
        assert number["unit"] in ("%", "points", "% of own effect", "index") and isinstance(
            number["value"], float
        )
        assert number["low"] is None or number["low"] <= number["value"] <= number["high"]
    effective = {parameter for parameter in parameters(name) if parameter in settings.load("smoke")}
    assert not [parameter for parameter in effective if result["parameters"][parameter] is None]


def test_notebooks_do_not_overwrite_each_other(smoke):
    outputs = [path for result in smoke.results.values() for path in result["outputs"]]
    assert len(set(outputs)) == len(outputs)
    assert {
        str(path.relative_to(smoke.out))
        for path in smoke.out.glob("*/*.*")
        if path.parent.name != ".records"
    } == set(outputs)


def test_every_claim_has_its_measure_and_its_line_in_the_report(smoke):
    measures = {measure for result in smoke.results.values() for measure in result["measures"]}
    assert {claim.measure for claim in claims.CLAIMS} <= measures
    told = json.loads(summary.as_json(summary.gather("smoke")))
    assert told["profile"] == "smoke" and told["seeds"] == [0] and list(told["seconds"]) == NAMES
    assert [claim["id"] for claim in told["claims"]] == [claim.id for claim in claims.CLAIMS]
    assert {claim["status"] for claim in told["claims"]} <= {
        "inconclusive",
        "not run",
    }  # one seed decides nothing
    assert len(told["headline"]) >= len(NAMES)


def test_a_second_call_has_nothing_to_do(smoke):
    before, started = numbers(smoke.out), time.monotonic()
    assert not any(record.reason for record in run())
    assert time.monotonic() - started < 20 and numbers(smoke.out) == before
