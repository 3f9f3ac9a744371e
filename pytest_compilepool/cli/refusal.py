# SPDX-License-Identifier: Apache-2.0
"""How a sub-command refuses what it was given: with one sentence, and its exit status."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

BAD_ARGUMENTS = 4
"""As pytest's."""


class Refused(Exception):
    """The sentence; the value, where it came from and what is allowed are in it."""


class Parser(argparse.ArgumentParser):
    """argparse's, which refuses with one sentence and the exit status of the sub-command, and whose help fits one screen.

    bad_arguments: that status; epilog: to be an example, which stands on a line of its own.
    """

    bad_arguments = 2

    def __init__(self, **values: Any) -> None:
        """values: as argparse takes them."""
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **values})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does it, but what is not known is refused by the sub-command that it was given to."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(self._not_known(unknown))
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where the help is, and end."""
        self.exit(self.bad_arguments, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def _not_known(self, unknown: Sequence[str]) -> str:
        options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if not options:
            return f"{unknown[0]!r} is one argument too many"
        near = difflib.get_close_matches(options[0], self._option_string_actions, 1)
        return f"there is no option {options[0]}" + (f"; did you mean {near[0]}?" if near else "")


def sentence(text: str) -> str:
    """What a command is for, as its description."""
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def listed(description: str, commands: Mapping[str, str]) -> str:
    """The description of a command that has sub-commands. commands: what each is for, by its name."""
    width = max(map(len, commands))
    return "\n".join([description, "", *(f"  {name:<{width}}  {text}" for name, text in commands.items())])


def words(text: str, option: str) -> tuple[str, ...]:
    """Words separated by commas. Raises Refused for an empty one."""
    found = tuple(word.strip() for word in text.split(","))
    if not all(found):
        raise Refused(f"{option}: {text!r} is not allowed; allowed: names separated by commas")
    return found
