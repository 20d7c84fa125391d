"""Options that several commands take, the values they give, and how errors are told."""

from __future__ import annotations

import ast
import functools
import os
from pathlib import Path
from typing import Any

import click

from bvlib.core.errors import BvError


def complain(*lines: Any) -> None:
    """Say lines on stderr, each after "bv: "."""
    for line in lines:
        click.echo(f"bv: {line}", err=True)


def parse_value(text: str) -> Any:
    """The value of `-p name=value`: a Python or YAML literal (number, list, true, none, ...), else
    text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    if text.lower() in ("true", "false", "none", "null"):
        return {"true": True, "false": False}.get(text.lower())
    if text[:1] in ("[", "{"):
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            raise BvError(f"cannot read the value {text!r}: write a list like [a, b]") from None
    return text


# Options that several commands take


path_option = functools.partial(click.option, type=click.Path(path_type=Path))
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
    from bvlib.core.registry import load_plugins
    from bvlib.run.notebooks import plugin_files

    if files:
        paths = dict.fromkeys([*plugin_files(), *(path.resolve() for path in files)])
        os.environ["BVLIB_PLUGINS"] = os.pathsep.join(map(str, paths))
        load_plugins(paths)


PROFILE = click.option(
    "--profile", default="mini", show_default=True, help="smoke, mini, real32 or paper"
)
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
