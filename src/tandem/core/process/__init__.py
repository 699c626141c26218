"""Processes: the keeper of a job, its journal, control groups, machine-wide locks, peers of a socket."""
