"""Tandem runs CPU and GPU jobs together on the machines a lab already has."""

__version__ = "0.1.0"
