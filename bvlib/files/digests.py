"""What a result comes from, as hashes: plain values, and the code of modules with all that they
import.

The hash of a module is that of its syntax tree without docstrings, so comments and layout do not
count. Modules are found and read without importing them.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bvlib.core.errors import BvError

# Modules that keep, find and run things, or bring in what is hashed by its content (datasets,
# encoders): they do not decide a result.
SHELL = {
    f"bvlib.{name}"
    for name in (
        "checkpoints",
        "clip",
        "files",
        "notebook",
        "paper_arrays",
        "paper_data",
        "paper_fetch",
        "paper_folders",
        "paper_names",
        "paper_source",
        "paper_table",
        "paper_write",
        "profiles",
        "runner",
        "sources",
        "store",
    )
}


# Changes that were shown to give the bits of the code before them (CONTRIBUTING.md says how), so
# that what that made stays valid:
# {hash of a module or notebook as it is: as it was when the committed results were made}. Empty it
# when those are made again.
SAME_BITS = {
    # _torchvision: operators declared only where they are lacking
    "e75ad09957ef38f83e3959b7039b710cca5a9d7c5029c9e4a5180a72db4af0b5": "41d07da4d252ac8a1d4dc59ad2f4b66d70bde06f0eded197908704e09510f2ca",
    # published: more points of the scaling figure, which notebook 02 alone draws
    "2c8d550ffdf53460af5e6819d41a60f3d26f926f6d25a2b88f569f2b307dd900": "9f91a04e2bf5b1c4174065798a8b8bb0c57c1b2613da361c38aa1713c1a31663",
    # lab: a cap on Neural Cleanse's images, unused but in paper
    "75780d30429d28e67fd871434c9503df795b99e3b27823bd9a06ae2c074ebc90": "2a38659a2ed78ed8f8202c2b2921933b8f07623095049b2356773694fc1d03d4",
    # workshop: epochs by task where a profile has no steps; keys tell the half
    "37c42c124659a6139f31d0d06781f709b2f551a20a00d6d170bf6cb3f4922a34": "c922d5ce006dee85a5e9455211491300c79cebd45f458958bcbab2b05579dd7b",
    "94e93a104e544a4464af9e05f286e34284b49da0783e79a7f729aeeb9d5bdbca":  # vectors: trim by one op
    "7ab4d648d75f13766c9fe30e199f93059a674a5087e90bf88b1908e9e22ec5e2",
    # merging: TIES in fewer passes
    "e2a2654105dd5446f57f4e606aaa6bef598882f45339b6c613ffc064239636ca": "26a0a3c0f27d7ab5d637921c5ed9f417797e097e24dab023acf033ccf5b233a7",
    # notebook 03: the number of vectors by the profile's `sbv`
    "7ad469a8983bc1c31e0ca102791d7bb2dcb48ff37f35a0d2fd4916b823472b1c": "fd387071f0616baad08cda40cd9b84770d629750f9712476133f8a5ef71d561c",
    # notebook 05: a legend written plainly
    "204ce761aea446156c41a19022fbd02d038cbd46064091808a29f7ad3e97bd29": "da77d097f61c59ca8441ab24911bb091574dd8713b2d13ea47b7bf4354498b10",
    # notebook 08: names of algorithms that do not overlap
    "299589205a67d1d848e796610991f095c37d21d800d9dffd7326bf3c51626e98": "48c077bb1dde7e6db4a4f7c0eb22af476f6fa0db673ab3bf70c7ec7d45231791",
}


def canonical(value: Any) -> str:
    """The one JSON text of a plain value: keys sorted, no spaces. BvError for what is not plain."""

    def plain(item: Any) -> Any:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return {type(item).__name__: dataclasses.asdict(item)}
        if isinstance(item, (set, frozenset)):
            return sorted(item)
        if getattr(item, "ndim", None) == 0 and hasattr(item, "item"):
            return item.item()
        raise BvError(
            f"a {type(item).__name__} cannot be part of a key: give plain values, "
            "or the sha256 of what it holds"
        )

    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=plain)


def digest(value: Any) -> str:
    """sha256 (64 hex digits) of a plain value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def code_hash(modules: Sequence[str]) -> str:
    """One hash of the code of `modules` and of every module of their package that they import, to
    the end.

    Comments, docstrings and layout do not count, nor do the modules of :data:`SHELL`; a module of
    :data:`SAME_BITS` counts as it was. BvError for a module that does not
    exist or parse.
    """
    return digest(
        {
            name: SAME_BITS.get(part, part)
            for name, part in code_parts(modules).items()
            if name not in SHELL
        }
    )


def code_parts(modules: Sequence[str]) -> dict[str, str]:
    """{module: hash of its syntax tree} for `modules` and all they import from the same package."""
    parts: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in parts:
            continue
        path = _source(module)
        if path is None:
            raise BvError(
                f"no source of module {module!r} to hash: name a module of the package in `code`"
            )
        state = path.stat()
        parts[module], imports = _parsed(module, path, state.st_mtime_ns, state.st_size)
        waiting += imports
    return parts


def imported_modules(tree: ast.AST, package: str, within: str = "") -> list[str]:
    """The modules of `package` that a syntax tree imports, anywhere in it.

    `within` is the package that relative imports start from. `from package import name` counts as
    the submodule `name` when there is one, else as the package itself.
    """
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = (
                within.split(".")[: len(within.split(".")) - node.level + 1] if node.level else []
            )
            base = ".".join([*above, *filter(None, [node.module])])
            if base.split(".")[0] != package:
                continue
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                found.add(submodule if _source(submodule) else base)
    return sorted(name for name in found if name.split(".")[0] == package and _source(name))


@functools.lru_cache(maxsize=1024)
def _parsed(module: str, path: Path, _mtime: int, _size: int) -> tuple[str, list[str]]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise BvError(f"{path.name} does not parse (line {error.lineno}): {error.msg}") from None
    is_package = path.name == "__init__.py"
    within = module if is_package else module.rpartition(".")[0]
    imports = imported_modules(tree, module.split(".")[0], within)
    if is_package:  # lazy attributes: an __init__ names its submodules in strings
        names = {
            node.value.lstrip(".")
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"\.?[A-Za-z_][\w.]*", node.value)
        }
        for name in sorted(names):
            full = name if name.startswith(module + ".") else f"{module}.{name}"
            imports += [full] if _source(full) else []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return hashlib.sha256(_dump(tree).encode()).hexdigest(), imports


def _dump(tree: ast.AST) -> str:
    """A syntax tree as Python 3.11 writes it. 3.12 knows a field more and, in its first releases,
    empty ends of format
    specifications; 3.13 leaves out what is empty."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            node.values = [
                value
                for value in node.values
                if not (isinstance(value, ast.Constant) and value.value == "")
            ]
    full = {"show_empty": True} if sys.version_info >= (3, 13) else {}
    return ast.dump(tree, **full).replace(", type_params=[]", "")


def _source(module: str) -> Path | None:
    """The file of a module, found without importing it; None when there is none."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    for folder in spec.submodule_search_locations:
        base = Path(folder, *rest)
        for path in ([base.with_name(base.name + ".py")] if rest else []) + [base / "__init__.py"]:
            if path.is_file():
                return path
    return None
