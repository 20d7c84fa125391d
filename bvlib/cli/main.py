"""The group of all commands, and the options and values that several of them take."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import click

from bvlib.core.errors import BvError


class Group(click.Group):
    """A group of commands that turns a BvError into one line and exit code 2, an interrupt into
    130."""

    def invoke(self, ctx: click.Context) -> Any:
        from bvlib.core.errors import NotebookFailed

        try:
            return super().invoke(ctx)
        except NotebookFailed as error:
            click.echo(f"bv: {error}", err=True)
            ctx.exit(1)
        except BvError as error:
            click.echo(f"bv: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo(
                "bv: stopped; what was computed is kept, the same command goes on from there",
                err=True,
            )
            ctx.exit(130)


def seed_list(seed: int | None, seeds: str | None) -> list[int] | None:
    """The seeds of `--seed 0` or `--seeds 0,1,2`; None if neither was given. BvError if no
    number."""
    if seeds is None:
        return None if seed is None else [seed]
    try:
        found = [int(item) for item in seeds.split(",")]
    except ValueError:
        raise BvError(
            f"--seeds wants whole numbers with commas, like 0,1,2; got {seeds!r}"
        ) from None
    return list(dict.fromkeys(found))


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


def parse_parameters(items: tuple[str, ...]) -> dict[str, Any]:
    """{name: value} of all `-p name=value`. BvError for an item without `=`."""
    found = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise BvError(f"-p wants name=value, got {item!r}")
        found[name.strip()] = parse_value(text.strip())
    return found


def use_plugins(files: tuple[Path, ...]) -> None:
    """Load plugin files now, so that names are checked with them, and name them to the kernels."""
    from bvlib.core.registry import load_plugins
    from bvlib.run.notebooks import plugin_files

    paths = [*plugin_files(), *(path.resolve() for path in files)]
    if paths:
        os.environ["BVLIB_PLUGINS"] = os.pathsep.join(map(str, dict.fromkeys(paths)))
    load_plugins(dict.fromkeys(paths))


PROFILE = click.option(
    "--profile", default="mini", show_default=True, help="smoke, mini, real32 or paper"
)
SEED = click.option("--seed", type=int, default=None, help="one seed (run: 0 if not given)")
SEEDS = click.option("--seeds", default=None, metavar="0,1,2", help="several seeds")
PLUGIN = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="a Python file that registers methods of your own",
)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Backdoors in model merging: Backdoor Vectors and BadMerging, reproduced."""
