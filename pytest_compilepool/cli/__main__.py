# SPDX-License-Identifier: Apache-2.0
"""`python -m pytest_compilepool.cli`."""

from __future__ import annotations

import sys

from pytest_compilepool.cli.main import main

sys.exit(main())
