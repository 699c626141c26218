"""Estimator models, one a file; each exposes `make(coruns, profiles)`, `USES_PAIRS` and `USES_PROFILES`."""
