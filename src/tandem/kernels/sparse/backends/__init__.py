"""One file a backend: `supported()`, `forward(weight, x)`, `TOLERANCE`."""
