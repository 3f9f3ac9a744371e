# SPDX-License-Identifier: Apache-2.0
"""Whether what the workers make is what one thread would have made: kernels, outputs, counters, errors."""
