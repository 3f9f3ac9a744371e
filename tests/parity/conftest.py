# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="parity is between torch's ways to compile")
