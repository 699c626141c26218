"""Workloads: what arrives when on which nodes, read from tables or generated, and reshaped."""
