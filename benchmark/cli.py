"""The command line: parses, dispatches, and turns every error a user can meet into one line and an exit code."""

from __future__ import annotations

import argparse
import difflib
import errno
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from benchmark.commands import (
    challenge,
    controls,
    data,
    doctor,
    examine,
    explain,
    list_entries,
    report,
    run,
    show,
    train,
    validate,
    verify,
)
from registry.errors import BenchmarkError

COMMANDS = (
    run,
    report,
    list_entries,
    train,
    validate,
    data,
    show,
    explain,
    verify,
    examine,
    challenge,
    controls,
    doctor,
)
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""
_UNUSABLE_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with near matches for a misspelt word."""

    def error(self, message: str) -> NoReturn:
        """Prints what was expected, what came and what to do, and exits with 2."""
        print(f"{self.prog}: error: {_with_near_match(message)}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def parser() -> Parser:
    """Returns the parser of all commands."""
    top = Parser(
        prog="python -m benchmark",
        description="How robust are defended medical-imaging models, against which attack, and at what cost?",
        epilog="examples:\n"
        "  python -m benchmark run --suite smoke      works without any data, in a few minutes\n"
        "  python -m benchmark report                 builds the pages from the records\n"
        "  python -m benchmark list defenses\n"
        "  python -m benchmark explain JPEG breastmnist   why a row has its status\n"
        "  python -m benchmark verify                 recomputes scores from stored adversarials\n"
        "  python -m benchmark COMMAND --help         options and examples of one command",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS:
        command.add_to(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 all done, 1 a cell failed or nothing could be done, 2 the user's mistake, 130 after Ctrl-C.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        args = parser().parse_args(argv)
        args.words = tuple(sys.argv[1:] if argv is None else argv)
        code = args.execute(args)
        sys.stdout.flush()
        return code
    except BenchmarkError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # e.g. `list | head`: the reader has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - the flush at exit must not fail again
        return 0
    except OSError as error:
        if error.errno not in _UNUSABLE_STORAGE:
            raise
        where = f" at {error.filename}" if error.filename else ""
        print(f"error: {error.strerror}{where}; free some space or choose a folder you can write", file=sys.stderr)
        return 2


def _with_near_match(message: str) -> str:
    """Returns argparse's message, with the choices nearest to the invalid one before all others."""
    found = re.match(
        r"(?:argument (?P<what>.+?): )?invalid choice: '(?P<given>.*)' \(choose from (?P<choices>.*)\)", message
    )
    if found is None:
        return message
    choices = re.findall(r"[\w.-]+", found["choices"])
    near = difflib.get_close_matches(found["given"], choices, n=3, cutoff=0.5)
    what = "command" if found["what"] == "COMMAND" else "choice"
    if near:
        return f"unknown {what} {found['given']!r}; did you mean {' or '.join(near)}?"
    return f"unknown {what} {found['given']!r}; known: {', '.join(choices)}"
