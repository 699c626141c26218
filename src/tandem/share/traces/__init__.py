"""Readers of job histories, one format a file; each exposes `read`, `sniff` and `EXTENSIONS`."""
