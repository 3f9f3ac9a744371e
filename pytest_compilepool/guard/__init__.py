# SPDX-License-Identifier: Apache-2.0
"""Nothing is left of a session's pools, whatever ended it: a process that waits for its end, and cleans up after it."""
