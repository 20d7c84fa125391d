"""Profiles: what a run does (world, base, tasks, sizes, steps), one YAML file each in `profiles/`.

:mod:`bvlib.run.parts` says which settings there are. Profiles and `-p name=value` are checked by
it, and the lines of a notebook's parameters cell are made from it.
"""

import math
import operator
import os
import pkgutil
import re
import types
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from bvlib.core.errors import BvError, check_choice
from bvlib.files.safe import read_yaml
from bvlib.run.parts import Resources, Run, Settings

RUN = {spec.name: spec for spec in fields(Run)}
FIELDS: dict[str, Field] = {**RUN, **{spec.name: spec for spec in fields(Settings)}}
KINDS: dict[str, Any] = {**get_type_hints(Run), **get_type_hints(Settings)}
ENDS = {"low": operator.ge, "above": operator.gt, "high": operator.le}
NOUNS = {int: "a whole number", float: "a finite number", str: "text"}
ASIDE = ("about", "second_base", "second_adversary")  # no notebook asks for these


def folder() -> Path:
    """Where the profiles lie: beside this module, or the folder that BVLIB_PROFILES names."""
    return Path(os.environ.get("BVLIB_PROFILES") or Path(__file__).with_name("profiles"))


def names() -> list[str]:
    """The names of all profiles, sorted."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def load(name: str) -> dict[str, Any]:
    """What decides the results of notebooks on a profile, as it stands: flat keys and nested groups
    (`train`, ...), checked; all but `resources` and `admission`.

    BvError for an unknown name (with the nearest known one), broken YAML, YAML that is no mapping,
    and what :func:`read` refuses.
    """
    content = _content(name)
    _checked(name, content)
    return {key: value for key, value in content.items() if key not in ("resources", "admission")}


class Effective(Mapping[str, Any]):
    """The settings of one run, ``data``, that note in ``read`` which names were asked for: no other
    can have decided what the run gave. Going through all of them asks for all."""

    def __init__(self, content: Mapping[str, Any]):
        self.data, self.read = dict(content), set[str]()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return self.data[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.data[name] = value

    def __iter__(self) -> Iterator[str]:
        self.read.update(self.data)
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


def deciding(
    content: Mapping[str, Any], read: Collection[str] | None, known: Collection[str]
) -> dict[str, Any]:
    """Those of the settings that may decide what a run gave: it asked for them (``read``; None:
    that was not noted), or there was none of the name (``known``) when it ran."""

    def may(name: str) -> bool:
        return name not in ASIDE and (read is None or name in read or name not in known)

    return {name: value for name, value in content.items() if may(name)}


def resources(name: str) -> Resources:
    """What a notebook's run takes on a profile; OMP_NUM_THREADS, where it is set, says how many
    threads. BvError as :func:`load`, and for an OMP_NUM_THREADS that is no number."""
    found, given = read(name).resources, os.environ.get("OMP_NUM_THREADS")
    if given and not (given.isdecimal() and int(given)):
        raise BvError(f"OMP_NUM_THREADS wants a number of threads, like 1; it is {given!r}")
    threads = int(given) if given else found.threads
    return replace(found, threads=threads or os.cpu_count() or 1)


def read(name: str, registries: bool = False) -> Settings:
    """A profile as the typed object, with the defaults of what it leaves out.

    BvError for an unknown or missing setting, a wrong type, a value out of range. ``registries``:
    names of attacks, methods and the like are checked too, which imports torch.
    """
    return _checked(name, _content(name), registries)


def check(name: str, value: Any, path: str = "") -> None:
    """BvError if `value` does not fit the setting `name`, or an item of a list that of one
    (`coefficients`: `coefficient`); any other name is let pass."""
    if name not in FIELDS and isinstance(value, list):
        for i, item in enumerate(value):
            check(name.removesuffix("s"), item, f"{name}[{i}]")
    if name in FIELDS and value is not None:
        spec = FIELDS[name]
        _value(spec, KINDS[name], value, path or name, True, spec.metadata.get("over", False))


def parameter_line(name: str) -> str:
    """The line of a notebook's parameters cell for a setting, or for profile, seed or out."""
    default = FIELDS[name].default if name in RUN else None
    text = repr(default).replace("'", '"')
    return f"{name}: {_annotation(KINDS[name])} = {text}  # {_help(name)}"


def derived(line: str) -> str:
    """A line of a parameters cell: that of a setting as :func:`parameter_line` has it."""
    name = line.partition(":")[0]
    return parameter_line(name) if name in FIELDS else line


def described(name: str) -> list[str]:
    """The settings inside of a part, a line each with type, help and range; none for others."""
    if name not in FIELDS or not is_dataclass(_core(KINDS[name])):
        return []
    return [
        f"{path}: {_annotation(kind)}  # {spec.metadata['help']} ({_wanted(kind, spec, True)})"
        for path, spec, kind in _leaves(_core(KINDS[name]), f"{name}.")
    ]


def _content(name: str) -> dict[str, Any]:
    import yaml

    path = folder() / f"{name}.yaml"
    if not names():
        raise BvError(
            f"no profiles in {folder()}: let BVLIB_PROFILES name a folder of them, or none"
        )
    check_choice("profile", name, names())
    try:
        content = read_yaml(path)
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise BvError(f"profile {path.name} is not valid YAML: {said}") from None
    if not isinstance(content, dict):
        found = type(content).__name__
        raise BvError(f"profile {path.name} holds a {found}, not names with values")
    return numbers(content)


def numbers(value: Any) -> Any:
    """YAML reads 1e-5 (without a point) as text: make it the number that was meant. BvError for a
    value that holds itself."""
    try:
        if isinstance(value, dict):
            return {key: numbers(item) for key, item in value.items()}
        if isinstance(value, list):
            return [numbers(item) for item in value]
    except RecursionError:
        raise BvError(
            "a YAML alias (*name) lies within its own anchor (&name): write it out"
        ) from None
    if isinstance(value, str) and re.fullmatch(r"[-+]?(\d+\.?|\d*\.\d+)[eE][-+]?\d+", value):
        return float(value)
    return value


# Checks


def check_tasks(p: Mapping[str, Any]) -> None:
    """BvError for settings that merge no task, one with itself, or leave out the adversary's."""
    names = list(p["tasks"])
    if repeated := [name for name in names if names.count(name) > 1]:
        raise BvError(f"task {repeated[0]!r} is merged with itself: name each task once")
    check_choice("adversary among the merged tasks", p["adversary"], names)


def _checked(name: str, content: Mapping[str, Any], registries: bool = False) -> Settings:
    try:
        return _part(Settings, content, "", registries)
    except BvError as error:
        raise BvError(f"profile {name}.yaml: {error}") from None


def _part(part: Any, content: Any, path: str, registries: bool, few: bool = False) -> Any:
    """The part of a profile that `content` names; with `few`, settings may be missing."""
    if not isinstance(content, Mapping):
        raise BvError(f"{path.rstrip('.')} wants names with values, got {content!r}")
    known, kinds, found = {spec.name: spec for spec in fields(part)}, get_type_hints(part), {}
    for key in content:
        check_choice("setting", f"{path}{key}", [path + each for each in known])
    for name, spec in known.items():
        if name in content:
            found[name] = _value(spec, kinds[name], content[name], path + name, registries)
        elif spec.default is MISSING and not few:
            raise BvError(f"{path}{name} is missing ({spec.metadata['help']})")
    return None if few else part(**found)


def _value(spec: Field, kind: Any, value: Any, path: str, names: bool, few: bool = False) -> Any:
    """`value` as the field wants it; BvError if it does not fit. `names`: registries are asked."""
    core: Any = _core(kind)
    rule: Any = spec.metadata
    if is_dataclass(core):
        return _part(core, value, f"{path}.", names, few)
    if value is None and core is not kind:
        return None
    if get_origin(core) is tuple:
        if not isinstance(value, (list, tuple)):
            raise BvError(f"{path} wants a list, got {value!r}")
        item = get_args(core)[0]
        return tuple(_value(spec, item, v, f"{path}[{i}]", names) for i, v in enumerate(value))
    fits = isinstance(value, (int, float) if core is float else core) and type(value) is not bool
    if not fits or (core is not str and not _in_range(value, rule)):
        raise BvError(f"{path} wants {_wanted(kind, spec)}, got {value!r}")
    named = isinstance(rule.get("choices"), str)  # of a registry
    choices: Any = None if named and not names else _choices(spec)
    if choices is not None:
        check_choice(path, value, choices)  # pyright: ignore[reportArgumentType]
    return core(value)  # pyright: ignore[reportArgumentType]


def _in_range(value: Any, rule: Mapping[str, Any]) -> bool:
    return math.isfinite(value) and all(ENDS[end](value, rule[end]) for end in ENDS if end in rule)


def _wanted(kind: Any, spec: Field, named: bool = False) -> str:
    """What a field takes, in words; with `named`, the names to choose from."""
    core, rule = _core(kind), spec.metadata
    if get_origin(core) is tuple:
        return f"a list, each {_wanted(get_args(core)[0], spec)}"
    if named and (choices := _choices(spec)):
        return ", ".join(choices)
    words = {"low": "of at least", "above": "above", "high": "at most"}
    ends = [f"{text} {rule[end]:g}" for end, text in words.items() if end in rule]
    return " ".join([NOUNS[core], " and ".join(ends)]).strip() + (" or None" * (core is not kind))


def _choices(spec: Field) -> Collection[str] | None:
    """The names that a setting may have; a registry is imported for them."""
    choices: Any = spec.metadata.get("choices")
    return pkgutil.resolve_name(choices) if isinstance(choices, str) else choices


def _core(kind: Any) -> Any:
    """A type without its `| None`."""
    if not isinstance(kind, types.UnionType):
        return kind
    return next(each for each in get_args(kind) if each is not type(None))


# Lines for readers


def _leaves(part: Any, path: str = "") -> Iterator[tuple[str, Field, Any]]:
    kinds = get_type_hints(part)
    for spec in fields(part):
        core = _core(kinds[spec.name])
        if is_dataclass(core):
            yield from _leaves(core, f"{path}{spec.name}.")
        else:
            yield path + spec.name, spec, kinds[spec.name]


def _annotation(kind: Any) -> str:
    core = _core(kind)
    if is_dataclass(core):
        return "dict"
    return "list" if get_origin(core) is tuple else core.__name__


def _help(name: str) -> str:
    """The help of a setting; that of a part names what is in it."""
    text, core = FIELDS[name].metadata["help"], _core(KINDS[name])
    return f"{text}: {', '.join(s.name for s in fields(core))}" if is_dataclass(core) else text
