# SPDX-License-Identifier: Apache-2.0
"""The facade before a compile pool, and what it needs to know of pools."""
