# SPDX-License-Identifier: Apache-2.0
"""As much of vLLM's counters as is read."""

from __future__ import annotations

from types import SimpleNamespace

compilation_counter = SimpleNamespace(num_compiled_artifacts_saved=0, num_aot_artifacts_loaded=0)
