# SPDX-License-Identifier: Apache-2.0
"""pytest-compilepool: fixtures, leak checks and conformance suites for torch.compile's compile pool.

Importing this package imports neither torch nor psutil nor triton nor vLLM.
"""
