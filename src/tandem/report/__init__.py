"""report.html, its pictures, and the same tables in a terminal: plain data in, whoever writes it."""
