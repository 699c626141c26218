"""Language models that learn from preferences and rewards.

Here so far: the algorithms (`algorithms/`), as pure functions on tensors. Needs torch.
"""
