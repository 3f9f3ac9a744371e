# SPDX-License-Identifier: Apache-2.0
"""A few functions of the standard library as they were when pytest loaded this plugin, before any test could patch them.

Attributes of a class: freezegun replaces what it finds in the globals of modules, wherever it was imported from.
"""

from __future__ import annotations

import os
import threading
import time


class Genuine:
    """Not to be made: its attributes are what is wanted."""

    getpid = staticmethod(os.getpid)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    threads = staticmethod(threading.enumerate)
