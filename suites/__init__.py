# SPDX-License-Identifier: Apache-2.0
"""The bundled conformance suites, installed as `pytest_compilepool.suites`."""
