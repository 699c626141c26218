"""Measuring real programmes: pinned, paused and continued, their rates compared in interleaved windows."""
