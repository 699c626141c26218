"""What is assumed of applications of which nothing is known, and how finely a slowdown can be measured at all."""

NOISE = 0.04
"""Relative half-width of the same run measured twice: register arithmetic, which shares nothing, measured 0.96 to 1.02
beside anything on a 2-core virtual machine."""

UNKNOWN_EXCESS = 0.6
"""Upper end of the 90 % interval of a slowdown beside one unknown neighbour, less 1: on the same machine the worst pair
was a random gather beside a memory stream, 1.60 to 1.63."""
