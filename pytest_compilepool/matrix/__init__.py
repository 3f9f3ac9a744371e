# SPDX-License-Identifier: Apache-2.0
"""Cells (the results of one run in one environment), and what can be read off many. Nothing here imports torch."""
