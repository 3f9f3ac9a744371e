# SPDX-License-Identifier: Apache-2.0
"""Inductor's compile pool in a released vLLM, from outside: the entry point `compilepool` of `vllm.general_plugins`.

Inert unless `VLLM_COMPILE_PROCESSES` is set.
"""
