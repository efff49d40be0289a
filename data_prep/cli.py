"""Commands of ``python -m data_prep``. Each command is a module with ``add_arguments`` and ``run``."""

from __future__ import annotations

import argparse
import sys

from data_prep import folders, verify
from data_prep.options import OptionError
from data_prep.sources import cifar10, kaggle, mufac, surf, synthetic

COMMANDS = {
    "mufac": mufac,
    "synthetic": synthetic,
    "cifar10": cifar10,
    "surf": surf,
    "kaggle": kaggle,
    "verify": verify,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code: 0 done, 1 a problem that a sentence names, 2 a wrong option."""
    parser = argparse.ArgumentParser(prog="python -m data_prep", description="Prepare a data set.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        summary, _, example = module.__doc__.partition("\n\n")
        command = subparsers.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    args = parser.parse_args(arguments)
    try:
        if "out" in args:
            folders.refuse_full(args.out, unless_it_has="manifest.json")  # before the work, not after it
        return COMMANDS[args.command].run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    except KeyboardInterrupt:
        print("Interrupted: nothing was written.", file=sys.stderr)
        return 130
