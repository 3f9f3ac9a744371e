# SPDX-License-Identifier: Apache-2.0
"""Starts of vLLM engines, each in a fresh interpreter, and what was seen of them."""
