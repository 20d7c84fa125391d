"""The solutions in course/solutions: one for each exercise of each notebook, in its words, and they
run on smoke."""

import json
import re
from pathlib import Path

import pytest
from matplotlib import pyplot as plt
from test_prose import long_sentences

from bvlib.core.registry import REGISTRIES
from bvlib.run import notebooks
from bvlib.run.notebooks import cell_text, read_cells

ROOT = Path(__file__).parents[1]
SOLUTIONS = ROOT / "course" / "solutions"
NUMBERS = [name.partition("_")[0] for name in notebooks.available()]
each_solution = pytest.mark.parametrize("number", NUMBERS)


def cells(number, kind):
    found = read_cells(SOLUTIONS / f"{number}.ipynb")
    return [cell for cell in found if cell["cell_type"] == kind]


def exercises(number):
    """The exercises of a notebook, each in one line."""
    (notebook,) = notebooks.find([number])
    texts = [cell_text(cell) for cell in read_cells(notebook.path)]
    (asked,) = [text for text in texts if text.startswith("## Exercises")]
    asked = asked.partition("\n\nNext:")[0]
    return [" ".join(each.split()) for each in re.split(r"(?m)^\d+\. ", asked)[1:]]


def solved(number):
    """[(exercise as the solution repeats it, cells that answer it)]."""
    found = []
    for cell in read_cells(SOLUTIONS / f"{number}.ipynb"):
        text = cell_text(cell)
        if cell["cell_type"] == "markdown" and text.startswith("## Exercise "):
            heading, _, asked = text.partition("\n")
            assert heading == f"## Exercise {len(found) + 1}"
            found.append((" ".join(asked.split()), []))
        elif found:
            found[-1][1].append(cell)
    return found


def test_each_notebook_has_solutions():
    assert sorted(path.stem for path in SOLUTIONS.glob("*.ipynb")) == NUMBERS


@each_solution
def test_each_exercise_is_solved_in_its_own_words(number):
    found = solved(number)
    assert [asked for asked, _ in found] == exercises(number)
    for asked, answer in found:
        *code, last = answer
        assert code and {cell["cell_type"] for cell in code} == {"code"}, asked
        assert cell_text(last).startswith("**Answer.** "), asked


@each_solution
def test_solutions_have_the_form_of_the_notebooks(number):
    content = json.loads((SOLUTIONS / f"{number}.ipynb").read_text(encoding="utf-8"))
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    code = cells(number, "code")
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert [cell["metadata"].get("tags") for cell in code].count(["parameters"]) == 1
    lines = [cell_text(cell).splitlines() for cell in code]
    assert max(map(len, lines)) <= 14
    assert max(len(line) for each in lines for line in each) <= 100
    assert cell_text(cells(number, "markdown")[0]).startswith(f"# Solutions to notebook {number}")


@each_solution
def test_sentences_of_solutions_are_short(number):
    assert not long_sentences("\n\n".join(map(cell_text, cells(number, "markdown"))))


@pytest.fixture
def as_registered():
    """What the plugins of a solution register is forgotten after it."""
    before = [set(registry) for registry in REGISTRIES]
    yield
    for registry, names in zip(REGISTRIES, before):
        for name in set(registry) - names:
            registry.without(name)


@pytest.mark.slow
@each_solution
def test_the_solutions_run(number, place, as_registered, capsys):
    """Each exercise computes an answer and says it in a line."""
    namespace, said = {}, []
    for cell in read_cells(SOLUTIONS / f"{number}.ipynb"):
        text = cell_text(cell)
        if cell["cell_type"] == "markdown":
            said += [""] if text.startswith("## Exercise ") else []
            continue
        exec(compile(text, f"solution {number}", "exec"), namespace)
        if "parameters" in cell["metadata"].get("tags", []):
            namespace["profile"] = "smoke"
        printed = capsys.readouterr().out
        if said:
            said[-1] += printed
    plt.close("all")
    assert all(said) and len(said) == len(exercises(number))
    assert namespace["lab"].p["profile"] == "smoke" and namespace["seed"] == 0
