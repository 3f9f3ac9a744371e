# SPDX-License-Identifier: Apache-2.0
"""What is looked at before and after a test: one file for each kind of leak."""
