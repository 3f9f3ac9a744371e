# SPDX-License-Identifier: Apache-2.0
"""`python -m reference_pool ...`: the sidecar, started by `ReferencePool`."""

from __future__ import annotations

import sys

from reference_pool import sidecar

sidecar.main(sys.argv[1:])
