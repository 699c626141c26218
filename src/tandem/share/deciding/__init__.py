"""What policies share: their contract, neighbours by the estimator, bounds, room made for others."""
