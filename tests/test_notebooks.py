"""The notebooks: their form, and all of them run in the smoke profile, the usual ones and the long
ones (slow) apart."""

import ast
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import badly_drawn, hard_to_read, run_notebooks

from bvlib.cli import main
from bvlib.core.versions import recipe as version_of
from bvlib.report import claims, summary
from bvlib.report.redraw import redraw
from bvlib.run import notebooks, settings
from bvlib.study import figures
from bvmake import golden

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
LONG = NAMES[6:10]  # run only when they are named
USUAL = [name for name in NAMES if name not in LONG]
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
DRAWN_IN_06 = {"badmerging_merged_asr_ties", "ca_minus_ba"}  # but measured in 01
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
    assert [each.name for each in notebooks.find(None)] == USUAL
    assert [golden.notebooks_of(study) for study in golden.STUDIES] == 2 * [USUAL, LONG]


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
        ("tpyo=1", "unknown parameter 'tpyo'; known: "),
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


def run(names):
    return run_notebooks(names, "smoke")


def all_of(names, folder):
    """These notebooks run once, in a run folder and a store of their own: .records, .out, .store,
    .results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BVLIB_RUNS", str(folder / "runs"))
        patch.setenv("BVLIB_STORE", str(folder / "store"))
        patch.setenv("OMP_NUM_THREADS", "1")  # the golden values are of one thread
        records = run(names)
        out, store = records[0].out, folder / "store"
        results = {n: json.loads((out / f"{n}.json").read_text(encoding="utf-8")) for n in names}
        yield SimpleNamespace(records=records, out=out, store=store, results=results)


@pytest.fixture(
    scope="module", params=["smoke", pytest.param("smoke-long", marks=pytest.mark.slow)]
)
def study(request, tmp_path_factory):
    """The notebooks of one golden study, with its name as .name."""
    ran = all_of(golden.notebooks_of(request.param), tmp_path_factory.mktemp(request.param))
    for each in ran:
        each.name = request.param
        yield each


def numbers(out):
    """{path: bytes} of every table and of the data of every figure."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/*.csv"))}


def stems(result, folder, ends):
    """The outputs of a notebook in a folder without their ends; each must have all ``ends``."""
    paths = [path for path in result["outputs"] if path.startswith(f"{folder}/")]
    found = sorted({path.rpartition(".")[0] for path in paths})
    assert found and sorted(paths) == sorted(stem + end for stem in found for end in ends)
    return found


def test_the_golden_values_are_met(study):
    """Bits on the processor and versions that made them, near elsewhere: no result has moved."""
    differ = golden.compare(golden.read(golden.folder(), study.name), golden.collect(study.out))
    assert differ == []


def test_all_run_in_order(study):
    assert [record.name for record in study.records if record.reason] == list(study.results)
    for name in study.results:
        cells = json.loads((study.out / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        done = [cell for cell in cells if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in done] == list(range(1, len(done) + 1))


def test_figures_are_picture_data_and_provenance(study):
    for name, result in study.results.items():
        for stem in stems(result, "figures", (".csv", ".json", ".png")):
            assert (study.out / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
            assert len(pd.read_csv(study.out / f"{stem}.csv"))
            told = json.loads((study.out / f"{stem}.json").read_text(encoding="utf-8"))
            assert told["notebook"] == name and told["caption"]
            parameters = told["parameters"]
            assert parameters["profile"] == "smoke" and parameters["trigger_size"] == 6
            assert version_of(f"notebook:{name}") in told["recipes"]


def test_every_figure_but_those_of_images_is_drawn_again_from_its_table(study, monkeypatch):
    pictures = {path.stem: path.read_bytes() for path in (study.out / "figures").glob("*.png")}
    shown, save = {}, figures.save_picture
    monkeypatch.setattr(
        figures, "save_picture", lambda f, png: shown.update({png: f}) or save(f, png)
    )
    drawn = [redraw(path) for path in sorted((study.out / "figures").glob("*.json"))]
    of_images = {"tasks", "triggers", "attention", "interactive", "interactive_places"}
    assert {path.stem for path in drawn if path} == pictures.keys() - of_images
    for path in filter(None, drawn):
        assert path.read_bytes() == pictures[path.stem], path.stem
        assert not hard_to_read(shown[path]) + badly_drawn(shown[path]), path.stem


def test_tables_are_there_with_their_provenance(study):
    for name, result in study.results.items():
        for stem in stems(result, "tables", (".csv", ".json")):
            assert len(pd.read_csv(study.out / f"{stem}.csv"))
            told = json.loads((study.out / f"{stem}.json").read_text(encoding="utf-8"))
            assert told["notebook"] == name


def test_the_run_says_what_came_out(study):
    for name, result in study.results.items():
        assert (result["notebook"], result["profile"], result["seed"]) == (name, "smoke", 0)
        for kind in ("headline", "measures", "artefacts"):
            assert result[kind], (name, kind)
        assert result["seconds"] > 0
        for number in result["headline"].values():
            assert number["unit"] in ("%", "points", "% of own effect", "index")
            assert isinstance(number["value"], float)
            assert number["low"] is None or number["low"] <= number["value"] <= number["high"]
        effective = parameters(name).keys() & settings.load("smoke").keys()
        assert not [each for each in effective if result["parameters"][each] is None]


def test_notebooks_do_not_overwrite_each_other(study):
    outputs = [path for result in study.results.values() for path in result["outputs"]]
    assert len(set(outputs)) == len(outputs)
    assert {
        str(path.relative_to(study.out))
        for path in study.out.glob("*/*.*")
        if path.parent.name != ".records"
    } == set(outputs)


def test_every_claim_has_its_measure_and_its_line_in_the_report(study):
    drawn = {Path(path).stem for result in study.results.values() for path in result["outputs"]}
    measures = {measure for result in study.results.values() for measure in result["measures"]}
    here = [claim for claim in claims.CLAIMS if claim.figure in drawn]
    assert here and {claim.measure for claim in here} <= measures | DRAWN_IN_06
    told = json.loads(summary.as_json(summary.gather("smoke")))
    assert told["profile"] == "smoke" and told["seeds"] == [0]
    assert list(told["seconds"]) == list(study.results)
    assert [claim["id"] for claim in told["claims"]] == [claim.id for claim in claims.CLAIMS]
    # one seed decides nothing
    assert {claim["status"] for claim in told["claims"]} <= {"inconclusive", "not run"}
    assert len(told["headline"]) >= len(study.results)


def test_a_second_call_has_nothing_to_do(study):
    before, started = numbers(study.out), time.monotonic()
    assert not any(record.reason for record in run(list(study.results)))
    assert time.monotonic() - started < 20 and numbers(study.out) == before
