"""A lab's hybrid day for real: declared, run, judged, reported."""
