# SPDX-License-Identifier: Apache-2.0
"""Measurements that are kept, shown and plotted: what a pool costs, and what it takes off compiles."""
