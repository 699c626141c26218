"""Algorithms, one a file; `algorithm.py` beside this folder says what a file exposes."""
