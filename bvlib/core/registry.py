"""One registry per kind of method: merging, attacks, triggers, defences, detectors, SBV rules.

A method is one function with its parameters as keyword-only arguments, and what a reader wants to
know of it: what it needs, where it is published, which version of its recipe this is. Whatever is
registered is listed by `bv list`, can be named in every notebook, and appears in the tables that
compare its kind. A file of one's own registers more (:func:`load_plugins`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bvlib.core.errors import BvError, unknown
from bvlib.core.versions import VERSIONS
from bvlib.core.versions import recipe as version_of

GROUP = "bvlib.plugins"  # the entry points by which an installed package registers its methods
REGISTRIES: list[Registry] = []  # all of them, for `bv list` and for tests
_loading: list[str] = []  # the hash of the plugin file that is being loaded
# recipes of the methods that ran in this process: what a figure tells of its making
USED: set[str] = set()


@dataclass(frozen=True)
class Method:
    """A registered function.

    ``parameters`` are its keyword-only arguments with their defaults, without those that the kind
    hands over itself; ``takes`` are the latter. ``needs`` says in words what the method must be
    given or must know, ``reference`` where it is published. ``version`` is raised by a person when
    the method's results are meant to change. ``more`` is what the kind asks for beside that. An
    ``open`` function takes any other parameter as well and hands it on.
    """

    kind: str
    name: str
    function: Callable[..., Any]
    needs: str = "nothing"
    reference: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    takes: frozenset[str] = frozenset()
    more: Mapping[str, Any] = field(default_factory=dict)
    open: bool = False

    @property
    def recipe(self) -> str:
        """What the keys of stored results and the cards of figures name: "merging:ties/1"."""
        return version_of(f"{self.kind}:{self.name}")

    @property
    def label(self) -> str:
        """What tables and figures call it."""
        return self.more.get("label", self.name)

    @property
    def what(self) -> str:
        """The first sentence of its description."""
        text = self.more.get("what") or inspect.getdoc(self.function) or ""
        return " ".join(text.split("\n\n")[0].split())

    def accepts(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the parameters that the method has: a profile's settings serve many methods."""
        return {name: value for name, value in parameters.items() if name in self.parameters}

    def __call__(self, *args: Any, **parameters: Any) -> Any:
        """Run it. BvError for a parameter that it does not have, with the nearest known one."""
        for name in parameters if not self.open else ():
            if name not in self.parameters and name not in self.takes:
                raise unknown(f"parameter of {self.name!r}", name, self.parameters)
        USED.add(self.recipe)
        return self.function(*args, **parameters)


M = TypeVar("M", bound=Method)


class Registry(dict[str, M]):
    """Methods of one kind by name, in the order in which they were registered.

    >>> merging = Registry("merging", "merging method")
    >>> @merging("median", reference="Yin et al. 2018")
    ... def median(vectors, *, coefficient=1.0): ...
    """

    def __init__(
        self,
        kind: str,
        title: str,
        *,
        takes: Iterable[str] = (),
        check: Callable[..., Callable] | None = None,
        method: type[M] = Method,
    ):
        self.kind, self.title, self.takes = kind, title, frozenset(takes)
        self.check, self.method = check, method
        REGISTRIES.append(self)

    def __call__(
        self,
        name: str,
        *,
        needs: str = "nothing",
        reference: str = "",
        version: int | None = None,
        **more: Any,
    ) -> Callable:
        """Decorator that registers a function and gives it back, wrapped by the kind's ``check``
        if there is one.

        BvError when another function has the name already.
        """

        def register(function: Callable) -> Callable:
            old = self.get(name)
            if old is not None and old.function.__qualname__ != function.__qualname__:
                raise BvError(f"{self.title} {name!r} is already registered: choose another name")
            arguments = list(inspect.signature(function).parameters.values())
            declared = {p.name: p.default for p in arguments if p.kind is p.KEYWORD_ONLY}
            takes = self.takes & {p.name for p in arguments}
            own = {k: v for k, v in declared.items() if k not in takes}
            if version is not None or _loading:  # an edited plugin makes its results anew
                VERSIONS[f"{self.kind}:{name}"] = version or _loading[-1]
            hands_on = any(p.kind is p.VAR_KEYWORD for p in arguments)
            checked = self.check(function) if self.check else function
            self[name] = self.method(
                self.kind, name, checked, needs, reference, own, takes, more, hands_on
            )
            return checked

        return register

    def __missing__(self, name: str) -> M:
        """BvError with the nearest known name."""
        raise unknown(self.title, name, self)

    def without(self, name: str) -> None:
        """Forget a method (for tests and for trying a plugin again)."""
        self.pop(name, None)
        VERSIONS.pop(f"{self.kind}:{name}", None)


def load_plugins(files: Iterable[str | Path] = ()) -> list[str]:
    """Run files that register methods, and the entry points of installed packages; the names of
    what was loaded.

    What a file registers has the file's hash as its version, unless it names one. This runs code:
    give files that you trust. BvError that names the file and its mistake.
    """
    loaded = []
    for path in map(Path, files):
        spec = importlib.util.spec_from_file_location(f"bvlib_plugin_{path.stem}", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise BvError(f"no plugin file {path}: give a Python file that registers methods")
        _loading.append(hashlib.sha256(path.read_bytes()).hexdigest()[:8])
        try:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        except BvError:
            raise
        except Exception as error:
            raise BvError(f"plugin {path} stopped with {type(error).__name__}: {error}") from error
        finally:
            _loading.pop()
        loaded.append(str(path))
    for point in importlib.metadata.entry_points(group=GROUP):
        point.load()
        loaded.append(point.name)
    return loaded
