# SPDX-License-Identifier: Apache-2.0
"""A compile pool that keeps every promise of the conformance suite: parent, sidecar, forked workers, no torch.

It shows that the demands can be met together, it is what mutants are made of, and it is the example for
whoever puts a pool of their own under the suite (`requirements.py`). Linux only.
"""

from __future__ import annotations

from reference_pool.pool import ReferencePool

__all__ = ["ReferencePool"]
