"""Pruning methods, one a file; `method.py` beside this folder says what a file exposes."""
