"""Promises of start and finish, and what makes them hold."""
