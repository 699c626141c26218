"""Estimator models, one a file; each exposes `make(coruns, capacity)` and `USES_PAIRS`."""
