"""Rows to learn from: read, checked, shared out among phases, blended, put into batches."""
