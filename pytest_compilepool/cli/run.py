# SPDX-License-Identifier: Apache-2.0
"""`compilepool run`: the bundled conformance suite against the torch that is installed, from any folder."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pytest_compilepool import sessionrecord
from pytest_compilepool.cli.asked import Asked, read
from pytest_compilepool.cli.listing import write
from pytest_compilepool.cli.refusal import BAD_ARGUMENTS as BAD_ARGUMENTS
from pytest_compilepool.fresh.interrupt import as_by_ctrl_c
from pytest_compilepool.session import Session
from pytest_compilepool.suite import bundled, told_to_workers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the sub-command."""
    parser.usage = f"{parser.prog} [OPTION ...] [-- ARGUMENT ...]"
    parser.epilog = "Example: compilepool run --mode smoke --cell here.json"
    parser.add_argument("--mode", metavar="MODE", help="smoke (30 s), standard (the default) or stress (all)")
    parser.add_argument("--group", metavar="G", help="these groups of features only, such as warm,death")
    parser.add_argument(
        "-n", metavar="N", help="so many at a time, with pytest-xdist (by the CPUs, at most 8)"
    )
    parser.add_argument("--list", action="store_true", help="print the features and what is known, try none")
    parser.add_argument(
        "--requirements", metavar="CLASS", help="module:Class, for another pool than torch's own"
    )
    parser.add_argument(
        "--interpreter", metavar="HOW", help="new, or fork (the default) of one that imported torch"
    )
    parser.add_argument("--expectations", metavar="FILE", help="known defects of that pool")
    parser.add_argument("--cell", metavar="FILE", help="write the results there, for `compilepool matrix`")
    parser.add_argument("--shard", metavar="K/N", help="a part of the features: 1/2 and 2/2 are all of them")
    parser.add_argument("--require", metavar="P", help="an error where it is not here: gpu, torch==2.13.*")
    parser.add_argument("--attempts", metavar="N", help="tries of a feature that is not as expected (1)")
    parser.add_argument("--ci", action="store_true", help="fail if an expectation is stale")
    parser.add_argument("pytest", nargs="*", metavar="ARGUMENT", help="for pytest, after --")


def run(arguments: argparse.Namespace) -> int:
    """Returns 0 (conforms), 1 (something unexpected), 2 (interrupted) and 5 (nothing was tried), as pytest does.

    Raises Refused for bad arguments.
    """
    # Ended as by Ctrl-C, whichever signal it is: what was started is ended with it.
    with as_by_ctrl_c(), contextlib.ExitStack() as stack:
        try:
            asked = read(arguments, stack)
            return write(asked) if arguments.list else _try(arguments, asked, stack)
        except KeyboardInterrupt:
            print("compilepool run: interrupted", file=sys.stderr)
            return int(pytest.ExitCode.INTERRUPTED)


def _removed_in_the_end() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(
        prefix=sessionrecord.folder_prefix("shared"), ignore_cleanup_errors=True
    )


def _try(arguments: argparse.Namespace, asked: Asked, stack: contextlib.ExitStack) -> int:
    command = [str(bundled()), "-p", "compilepool", "-p", "no:cacheprovider", "-c", os.devnull]
    # Nothing is looked for beside the installed files, and nothing is written there.
    command += [f"--rootdir={Path.cwd()}", "-q", "-rN", "--import-mode=importlib"]
    # This command has imported the package before pytest could rewrite its asserts, of which it has none to rewrite.
    command += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    given = {
        "mode": asked.mode,
        "group": arguments.group,
        "requirements": arguments.requirements,
        "interpreter": arguments.interpreter,
        "expectations": arguments.expectations,
        "cell": arguments.cell,
        "shard": arguments.shard,
        "require": arguments.require,
        "attempts": arguments.attempts,
    }
    command += [f"--compilepool-{name}={value}" for name, value in given.items() if value is not None]
    command += ["--compilepool-ci"] if arguments.ci else []
    command += ["-n", str(asked.at_once), "--dist=load", "--maxschedchunk=1"] if asked.at_once else []
    # Bytecode of a read-only install cannot be written; elsewhere it must not be.
    sys.dont_write_bytecode = True
    shared = stack.enter_context(_removed_in_the_end()) if asked.at_once else ""
    controller = _Controller(told_to_workers(asked.subject, asked.forks, shared))
    status = int(pytest.main([*command, *arguments.pytest], plugins=[controller]))
    # Arguments for pytest may have had it do something else.
    return status if status or controller.tried else int(pytest.ExitCode.NO_TESTS_COLLECTED)


class _Controller:
    """A plugin of the controller, whose workers need not find out again, each in an interpreter that imports torch.

    tell: what they are told; tried: how many features were, known at the end.
    """

    def __init__(self, tell: dict[str, str]) -> None:
        self._tell = tell
        self.tried = 0

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker; and be watched, for what they share is this process's to remove."""
        Session.of(node.config).guard.start()
        node.workerinput.update(self._tell)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """All verdicts have come in."""
        self.tried = Session.of(session.config).verdicts.tried
