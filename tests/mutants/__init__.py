# SPDX-License-Identifier: Apache-2.0
"""Mutants of pools, one file a group of features: `compilepool mutants` shows which features notice them."""

from __future__ import annotations

REFERENCE = "reference_pool.requirements:ReferenceRequirements"
TORCH = "pytest_compilepool.suites.requirements:TorchPool"
