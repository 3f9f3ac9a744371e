# SPDX-License-Identifier: Apache-2.0
"""How a sub-command refuses what it was given: with one sentence, and its exit status."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

BAD_ARGUMENTS = 4
"""As pytest's."""


class Refused(Exception):
    """The sentence; the value, where it came from and what is allowed are in it."""


class Parser(argparse.ArgumentParser):
    """argparse's, with the exit status of the sub-command. bad_arguments: that status."""

    bad_arguments = 2

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        self.print_usage(sys.stderr)
        self.exit(self.bad_arguments, f"{self.prog}: error: {message}\n")


def words(text: str, option: str) -> tuple[str, ...]:
    """Words separated by commas. Raises Refused for an empty one."""
    found = tuple(word.strip() for word in text.split(","))
    if not all(found):
        raise Refused(f"{option}: {text!r} is not allowed; allowed: names separated by commas")
    return found
