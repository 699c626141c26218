"""Packing: from folders, archives and URLs into a space."""
