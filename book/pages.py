"""Pages of the book that are made from files and registries elsewhere, before Sphinx reads them.

They are written into the book's folder, where git ignores them: those of `PAGES`, `methods.md` and
`notebooks/`. Links that hold in the repository are turned into links that hold in the book.
"""

import inspect
import os
import re
import shutil
from pathlib import Path

BOOK = Path(__file__).parent
ROOT = BOOK.parent
FIGURES = ROOT / "figures"  # lies beside the built pages as it is: conf.py's html_extra_path
NOTEBOOKS = FIGURES / "mini" / "notebooks"
PAGES = {  # page of the book: the file that it shows
    "claims": "figures/claims.md",
    "admission": "figures/admission/README.md",
    "data": "data/README.md",
    "clusters": "workflow/README.md",
    "course": "course/README.md",
    "contributing": "CONTRIBUTING.md",
    "responsible-use": "RESPONSIBLE_USE.md",
    "changes": "CHANGELOG.md",
    "benchmarks": "benchmarks/README.md",
}
TABLES = r"href=\"../tables/", r"href=\"../mini/tables/"
LINK = re.compile(r"(!?)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
ANCHOR = re.compile(r'<a id="([^"]+)"></a>')


def write() -> None:
    """Make all of them anew."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        (BOOK / f"{page}.md").write_text(text, encoding="utf-8")
    shutil.rmtree(BOOK / "notebooks", ignore_errors=True)
    shutil.copytree(NOTEBOOKS, BOOK / "notebooks")
    for path in (BOOK / "notebooks").glob("*.ipynb"):  # figures/ lies at the root of the pages
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(*TABLES), encoding="utf-8")
    (BOOK / "methods.md").write_text(methods(), encoding="utf-8")


def source(page: str) -> Path:
    """The file of the repository that a page of the book shows."""
    if page.startswith("notebooks/"):
        return NOTEBOOKS / f"{page.partition('/')[2]}.ipynb"
    return ROOT / PAGES.get(page, f"book/{page}.md")


def linked(text: str, page: str) -> str:
    """The text of a page with links that hold in the book.

    A link to a file that is a page leads to that page, one to anything under figures/ to that
    file; of a link to another file of the repository the words stay. An anchor in HTML becomes a
    target that Sphinx knows.
    """
    of_page = {source(each).resolve(): each for each in [*PAGES, *_own(), *_notebooks()]}
    here = source(page).parent

    def new(match: re.Match) -> str:
        picture, words, path, anchor = match.groups(default="")
        target = (here / path).resolve()
        if picture:
            return f"![{words}]({os.path.relpath(target, (BOOK / page).parent)})"
        if target in of_page:
            there = os.path.relpath(of_page[target], Path(page).parent)
            suffix = ".ipynb" if target.suffix == ".ipynb" else ".md"
            return f"[{words}]({there}{suffix}{anchor})"
        if target.is_relative_to(FIGURES) and target.is_file():
            there = os.path.relpath(target.relative_to(FIGURES), Path(page).parent)
            return f"<a href='{there}'>{words.replace('`', '')}</a>"
        return words

    return LINK.sub(new, ANCHOR.sub(r"(\1)=", text))


def _own() -> list[str]:
    return [str(path.relative_to(BOOK).with_suffix("")) for path in BOOK.rglob("*.md")]


def _notebooks() -> list[str]:
    return [f"notebooks/{path.stem}" for path in NOTEBOOKS.glob("*.ipynb")]


def methods() -> str:
    """Every registered method with its reference, what it needs, its parameters and its text."""
    from bvlib.attacks import recipes, sbv  # noqa: F401  registered when imported
    from bvlib.core.registry import REGISTRIES
    from bvlib.defences import detectors, registry  # noqa: F401
    from bvlib.merging import merging  # noqa: F401

    lines = ["# Methods", "", "Each kind has one registry, and `bv list` shows what is in it.", ""]
    for kind in REGISTRIES:
        lines += [f"## {kind.title[0].upper()}{kind.title[1:]}s", ""]
        for method in kind.values():
            given = ", ".join(f"`{name}={value!r}`" for name, value in method.parameters.items())
            facts = {"needs": method.needs, "parameters": given, "published": method.reference}
            told = [f"*{fact}:* {what}" for fact, what in facts.items() if what]
            text = inspect.getdoc(method.function) or ""
            first = "" if " ".join(text.split()).startswith(method.what) else method.what
            paragraphs = [f"### `{method.name}`", first, text, ". ".join(told) + "."]
            lines += [line for each in paragraphs if each for line in (_markdown(each), "")]
    return "\n".join(lines)


def _markdown(text: str) -> str:
    """A docstring as Markdown: its roles and double backquotes become code."""
    return re.sub(r"(?::\w+:)?(`+)([^`]+)\1", r"`\2`", text)
