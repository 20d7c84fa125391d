"""The prose keeps its promises: a README of one page, sentences of a readable length, links and
code that work."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
IGNORED = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
# not measured: pages that are made from other files
PAGES = [
    page
    for page in sorted((ROOT / "book").rglob("*.md"))
    if str(page.relative_to(ROOT)) not in IGNORED
]


def without_code(text):
    """Markdown without blocks of code, comments and the targets of links."""
    text = re.sub(r"^```.*?^```\n?", "", text, flags=re.M | re.S)
    return re.sub(r"\]\([^)]*\)", "]", re.sub(r"<!--.*?-->", "", text, flags=re.S))


def sentences(text):
    """The sentences of paragraphs, lists and quotes; tables and headings have none."""
    found = []
    for part in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", without_code(text)):
        lines = [line for line in part.splitlines() if not re.match(r"\s*(\||#|!\[)", line)]
        plain = re.sub(r"\$[^$]*\$", "x", re.sub(r"[*_`>]", "", " ".join(lines)))
        found += [s for s in re.split(r"(?<=[.!?:])\s+", plain) if s.strip()]
    return found


def long_sentences(text, share=0.05, words=30):
    """The sentences longer than ``words``, if they are more than ``share`` of all."""
    every = sentences(text)
    long = [s for s in every if len(s.split()) > words]
    return long if len(long) > share * len(every) else []


def test_sentences_are_found_where_they_are():
    text = "# No\n\nOne. Two `a.b` words!\n\n| no | table |\n\n- Three\n  on.\n- Four\n```\nno\n```"
    assert sentences(text) == ["One.", "Two a.b words!", "- Three   on.", "- Four"]
    assert long_sentences("a " * 31 + ".") and not long_sentences("a " * 30)


def test_the_readme_is_one_page():
    assert len(without_code(README).split()) <= 1200


OTHERS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "RESPONSIBLE_USE.md",
    "benchmarks/README.md",
    "data/README.md",
    "workflow/README.md",
    *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "course").rglob("*.md"))),
]


@pytest.mark.parametrize("page", [*OTHERS, *(str(p.relative_to(ROOT)) for p in PAGES)])
def test_sentences_are_short(page):
    assert not long_sentences((ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "RESPONSIBLE_USE.md", "course/README.md"]
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert ((ROOT / page).parent / link).exists(), link


def test_the_snippet_of_the_readme_runs(capsys):
    [code] = re.findall(r"^```python\n(.*?)^```", README, flags=re.M | re.S)
    exec(compile(code, "README.md", "exec"), {})
    assert "cosine" in capsys.readouterr().out


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem < "06"], ids=lambda p: p.stem)
def test_notebooks_explain_their_code(path):
    """At least eight words of prose for each line of code."""
    cells = nbformat.read(path, as_version=4).cells
    lines = sum(
        len([line for line in cell.source.splitlines() if line.strip()])
        for cell in cells
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", [])
    )
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    assert words >= 8 * lines, f"{words} words, {lines} lines"


ASSIGNMENTS = sorted((ROOT / "course" / "source").rglob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS + ASSIGNMENTS, ids=lambda p: p.stem)
def test_sentences_of_notebooks_are_short(path):
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert not long_sentences(prose)
