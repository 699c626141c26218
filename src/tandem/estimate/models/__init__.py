"""Estimator models, one a file; each exposes `make(coruns)` and `USES_PAIRS`."""
