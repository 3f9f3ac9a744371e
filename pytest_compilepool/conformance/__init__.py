# SPDX-License-Identifier: Apache-2.0
"""What runs a conformance suite: features, what is expected of them, the bench that they are tried on."""
