"""Kernels that make a pruned model cheaper to run: sparse weights, and pruning to get them.

Everything here imports torch, so a module of this package is imported where it is used and never on the way to the
scheduler.
"""
