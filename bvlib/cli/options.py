"""Options that several commands take, the values they give, and how errors are told."""

import ast
import contextlib
import functools
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

import click
import yaml

from bvlib.core.errors import BvError
from bvlib.core.registry import load_plugins
from bvlib.run.notebooks import plugin_files

WORDS = {"true": True, "false": False, "none": None, "null": None}  # values, however spelt


def complain(*lines: Any) -> None:
    """Say lines on stderr, each after "bv: "."""
    for line in lines:
        click.echo(f"bv: {line}", err=True)


def end_with(lines: Collection[str]) -> NoReturn:
    """Say lines on stderr and exit: with 1 if there are any, else with 0."""
    complain(*lines)
    raise SystemExit(1 if lines else 0)


def parse_value(text: str) -> Any:
    """The value of `-p name=value`: a Python or YAML literal (number, list, true, none, ...), else
    text. A file of weights is one seen from where `bv` is called."""
    if text.endswith(".safetensors") and (path := Path(text).expanduser()).is_file():
        return str(path.absolute())
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if text[:1] in ("[", "{"):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            raise BvError(f"cannot read the value {text!r}: write a list like [a, b]") from None
    return text


# Options that several commands take


PATH = click.Path(path_type=Path)
path_option = functools.partial(click.option, type=PATH)
flag = functools.partial(click.option, is_flag=True)


def parse_seeds(_ctx: Any, _option: Any, text: str | None) -> list[int] | None:
    """The seeds of `--seed 0` or `--seeds 0,1,2`; None if neither was given. BvError if no
    number."""
    try:
        return None if text is None else list(dict.fromkeys(map(int, text.split(","))))
    except ValueError:
        raise BvError(f"--seeds wants whole numbers, like 0,1,2; got {text!r}") from None


def parse_parameters(_ctx: Any, _option: Any, items: tuple[str, ...]) -> dict[str, Any]:
    """{name: value} of all `-p name=value`. BvError for an item without `=`."""
    found = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise BvError(f"-p wants name=value, got {item!r}")
        found[name.strip()] = parse_value(text.strip())
    return found


def use_plugins(_ctx: Any, _option: Any, files: tuple[Path, ...]) -> None:
    """Load plugin files now, so that names are checked with them, and name them to the kernels."""
    if files:
        paths = dict.fromkeys([*plugin_files(), *(path.resolve() for path in files)])
        os.environ["BVLIB_PLUGINS"] = os.pathsep.join(map(str, paths))
        load_plugins(paths)


# default and help are given anew where they differ
profile_option = functools.partial(click.option, "--profile", default="mini", show_default=True)
PROFILE = profile_option(help="smoke, mini, real32 or paper")
SEEDS = click.option(
    "--seed", "--seeds", "seeds", metavar="0,1,2", callback=parse_seeds, help="one seed or several"
)
PARAMETERS = click.option(
    "-p",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    callback=parse_parameters,
    help="a parameter of the notebooks",
)
PLUGIN = path_option(
    "--plugin",
    multiple=True,
    metavar="FILE",
    callback=use_plugins,
    expose_value=False,
    help="a Python file that registers methods of your own",
)
