"""The daemon's memory: the event log, and tables to ask about jobs, promises and co-runs.

SQLAlchemy Core on SQLite in WAL mode with full synchronisation: what was committed survives `kill -9` and a power
failure. Every statement is portable SQL; what only SQLite understands is in `store.database`.
"""
