"""report.html, its pictures, and the same tables in a terminal. Plain data in; it knows nothing of who writes it."""
