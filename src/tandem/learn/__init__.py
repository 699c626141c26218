"""What training recipes share: advantages, losses, log-probabilities. Pure functions on tensors; needs torch.

The scheduler never imports this package.
"""
