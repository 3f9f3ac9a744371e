# SPDX-License-Identifier: Apache-2.0
"""What a session tells: at the terminal, as lines of JSON, as a cell."""
