# SPDX-License-Identifier: Apache-2.0
"""Running a function in a fresh interpreter, bounded, and getting back everything that it did."""
