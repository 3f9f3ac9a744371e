# SPDX-License-Identifier: Apache-2.0
"""The command `compilepool`: one file for each sub-command."""
