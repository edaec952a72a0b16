"""The command line: each subcommand is one dataclass whose fields are its options, with a method `run`.

Options have the names of the Python arguments; activations, costs and solvers have the names of their classes in lower
case.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import jax
import tyro

import oscsim as osc
from oscsim.cli.demo import Demo
from oscsim.cli.info import Info, Suggest
from oscsim.cli.lab import Lab
from oscsim.cli.plot import Plot
from oscsim.cli.reports import FAILURES, one_line
from oscsim.cli.reproduce import Reproduce
from oscsim.cli.settings import load_options, with_places
from oscsim.cli.simulate import Simulate
from oscsim.cli.sweep import Sweep
from oscsim.cli.train import Predict, Train, require_bare_resume, with_adaptive_steps
from oscsim.core import BadValue, as_path, say

COMMANDS = Demo | Suggest | Simulate | Train | Predict | Info | Plot | Sweep | Lab | Reproduce


def main(args: Sequence[str] | None = None) -> None:
    """The command `oscsim`. Errors of input are one line on stderr, with exit status 2; defects have a traceback.

    What ends it early is heard in `entry`.
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(f"oscsim: warning: {one_line(message)}")
        try:
            arguments = list(sys.argv[1:] if args is None else args)
            if arguments == ["--version"]:
                return print(f"oscsim {osc.__version__}")
            arguments = with_config(arguments)
            if arguments[:1] == ["train"]:
                require_bare_resume(arguments)
                arguments = with_adaptive_steps(arguments)
            description = f"{osc.__doc__} Any command takes --config FILE, a TOML file of its options; "
            description += "--version alone prints the version."
            with_places(tyro.cli(COMMANDS, prog="oscsim", description=description, args=arguments)).run()
        except BrokenPipeError:  # who reads has left, as `head` does; Python would complain of it again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(128 + 13)
        except FAILURES as error:
            fail(one_line(error))
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                fail(f"out of memory ({one_line(error)}): use smaller batches, layers or grids")
            raise


def fail(message: str) -> NoReturn:
    """End with one line on stderr."""
    print(f"oscsim: error: {message}", file=sys.stderr)
    sys.exit(2)


def with_config(args: list[str]) -> list[str]:
    """The arguments with `--config FILE` replaced by the options in that file; those given by hand win.

    It is a TOML file, or the `settings.json` of a training run.

    Raises:
        ValueError: there is no such file, or it is no TOML of plain options.
    """
    if "--config" not in args:
        return args
    place = args.index("--config")
    if place == 0 or place + 1 == len(args):
        raise BadValue("--config needs a command before it and a file behind it: oscsim train --config FILE")
    path, rest = as_path("config", args[place + 1]), args[1:place] + args[place + 2 :]
    options = load_options(path)
    given = {arg.split("=")[0].replace("_", "-") for arg in rest if arg.startswith("--")}
    found, positional = [], []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if type(value) is dict:
            raise BadValue(f"config={path}: [{name}] is a table; options stand at the top, such as {name} = ...")
        if name == "data" and args[0] == "train":
            positional = [] if rest and not rest[0].startswith("-") else [str(value)]
        elif type(value) is bool and flag not in given and flag.replace("--", "--no-", 1) not in given:
            found.append(flag if value else flag.replace("--", "--no-", 1))
        elif type(value) is not bool and flag not in given:
            found += [flag, *map(_text, value if type(value) is list else [value])]
    return [args[0], *positional, *rest, *found]


def _text(value: object) -> str:
    return value if type(value) is str else repr(value)
