"""Every registered method can be named in every notebook, and appears where its kind is compared.

The notebooks' cells are run in this process, on smoke, with one store, so that models are shared.
"""

import json
import re
import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from bvlib.attacks.recipes import attack
from bvlib.attacks.sbv import sbv_rule
from bvlib.cli import main
from bvlib.core.registry import REGISTRIES
from bvlib.core.versions import recipe as version_of
from bvlib.merging import merging
from bvlib.run import notebooks

CONTRIBUTING = notebooks.root_folder() / "CONTRIBUTING.md"
ON_TASK = [name for name, method in attack.items() if not method.off_task]
SHORT = {  # one or two points of each curve: what is tested here is that the method runs
    "01": {"coefficients": [0.3]},
    "03": {"scales": [0.0, 0.5, 1.0]},
    "04": {"sides": [4], "places": ["bottom-right"], "budgets": [10], "shares": [0.0, 1.0]},
    "05": {"scales": [0.0, 0.4]},
    "06": {"coefficients": [0.3]},
    "07": {"sides": [4], "alphas": [5.0], "references": [5], "shadows": [10]}
    | {"backdoors": [1], "copies": [1], "shares": [0.0, 0.5]},
    "08": {"densities": [0.2], "counts": [3], "agreements": [1.0], "coefficients": [0.3]},
    "09": {"scales": [0.0, 0.4], "known": [1]},
}


def cells(name, folder, **parameters):
    """Run a notebook's cells with these parameters; the namespace they leave."""
    (notebook,) = notebooks.find([name])
    parameters = {"profile": "smoke", "out": str(folder), **SHORT[name], **parameters}
    assert parameters.keys() <= notebook.parameters.keys()
    namespace = {"display": lambda *shown: None}
    for number, code in enumerate(notebook.code):
        exec(compile(code, f"{notebook.name}[{number}]", "exec"), namespace)
        if number == 0:
            namespace.update(parameters)
    return namespace


def table(folder, name):
    return pd.read_csv(folder / "tables" / f"{name}.csv")


def pairs():
    """Each merging method and each attack at least once, so that a run tries both."""
    count = max(len(merging), len(attack))
    return list(islice(zip(cycle(merging), cycle(attack)), count))


@pytest.mark.slow
@pytest.mark.parametrize("method, name", pairs())
def test_each_merging_method_and_each_attack_runs_in_01(method, name, place):
    folder = place / f"{method}-{name}"
    lab = cells("01", folder, merging=method, attack=name)["lab"]
    assert (lab.p["merging"], lab.p["attack"]) == (method, name)
    found = json.loads((folder / "01_badmerging.json").read_text())
    used = {version_of(f"merging:{method}"), version_of(f"attack:{name}")}
    assert used <= set(found["recipes"])
    assert found["headline"]["CA"]["value"] > 0
    assert method in set(table(folder, "main")["merging"])
    assert name in set(table(folder, "attacks")["attack"])


@pytest.mark.slow
def test_all_of_them_appear_in_the_main_table(place):
    cells("06", place / "all", methods=list(merging), attacks=ON_TASK)
    main_table = table(place / "all", "main_in_full")
    assert set(main_table["merging"]) == set(merging)
    assert set(main_table["attack"]) >= set(ON_TASK)
    assert set(table(place / "all", "off_task")["attack"]) >= set(attack) - set(ON_TASK)


@pytest.mark.slow
def test_each_rule_appears_where_rules_are_compared(place):
    cells("03", place / "rules")
    assert len(set(table(place / "rules", "sbv")["vector"])) > len(sbv_rule)
    cells("08", place / "grid", rules=list(sbv_rule), methods=["average", "regmean"])
    assert set(sbv_rule) <= set(table(place / "grid", "sbv_grid")["rule"])
    everywhere = table(place / "grid", "sbv_everywhere")
    assert {"average", "regmean"} <= set(everywhere["value"])


@pytest.mark.slow
def test_each_defence_appears_beside_the_others(place):
    from bvlib.defences.registry import defence

    few = {"methods": ["average", "surgery"]}
    cells("09", place / "defences", merging="surgery", attack="off-no-trigger", **few)
    assert len(set(table(place / "defences", "rivals")["defence"])) >= len(defence)
    cells("04", place / "inherent", methods=list(merging))


@pytest.mark.slow
@pytest.mark.parametrize("number", ["04", "05", "07"])  # 09 is above
def test_notebooks_of_defences_run_with_any_merge_and_attack(number, place):
    few = {"methods": ["surgery"]} if number == "04" else {}
    chosen = {"merging": "surgery", "attack": "off-no-trigger"}
    lab = cells(number, place / f"any-{number}", **chosen, **few)["lab"]
    assert lab.p["attack"] == chosen["attack"]


# A researcher's own file


def plugin():
    """The Python blocks of CONTRIBUTING.md as one file."""
    text = CONTRIBUTING.read_text(encoding="utf-8")
    part = text.partition("<!-- plugin")[2].partition("<!-- /plugin -->")[0]
    return "\n\n".join(re.findall(r"```python\n(.*?)```", part, flags=re.S))


@pytest.mark.slow
def test_the_examples_of_contributing_run_as_they_stand(place, tmp_path):
    """bv run 06 --plugin my.py -p attacks=… -p methods=…, in a kernel of its own."""
    (tmp_path / "my.py").write_text(plugin(), encoding="utf-8")
    block = CONTRIBUTING.read_text(encoding="utf-8").partition("```bash\nbv run 06 --plugin")[2]
    command = ("run 06 --plugin" + block.partition("\n")[0]).split()
    command[command.index("my.py")] = str(tmp_path / "my.py")
    ran = subprocess.run(
        [sys.executable, "-m", "bvlib.cli", *command, "--profile", "smoke"],
        capture_output=True,
        text=True,
        cwd=notebooks.root_folder(),
    )
    assert ran.returncode == 0, ran.stderr
    (folder,) = (Path(place) / "runs" / "smoke").glob("seed-0+*")
    main_table = table(folder, "main_in_full")
    own = {"task_arithmetic"}  # the run's own merging is always there
    assert set(main_table["merging"]) == {"ties", "median"} | own
    assert {"badnets", "whole-batch"} <= set(main_table["attack"])


def test_a_plugin_is_listed_and_then_forgotten(tmp_path, monkeypatch):
    path = tmp_path / "my.py"
    path.write_text(plugin(), encoding="utf-8")
    monkeypatch.setenv("BVLIB_PLUGINS", "")
    try:
        said = CliRunner().invoke(main, ["list", "--plugin", str(path)])
        assert said.exit_code == 0, said.output
        for name in ("median", "whole-batch", "shrink"):
            assert name in said.output
        assert re.fullmatch(r"merging:median/[0-9a-f]{8}", merging["median"].recipe)
    finally:
        for registry in REGISTRIES:
            for name in ("median", "whole-batch", "shrink"):
                registry.without(name)


@pytest.mark.parametrize(
    "text, words",
    [
        ("import nothing_at_all", "ModuleNotFoundError"),
        (
            "from bvlib.merging import merging\nmerging('ties')(lambda vectors: 0)",
            "'ties' is already",
        ),
    ],
)
def test_a_plugin_with_a_mistake_is_one_line_before_anything_runs(text, words, tmp_path):
    (tmp_path / "bad.py").write_text(text)
    said = CliRunner().invoke(main, ["run", "01", "--plugin", str(tmp_path / "bad.py")])
    assert said.exit_code == 2 and words in said.output and said.output.count("\n") == 1
