"""What the scheduler keeps: jobs, who holds what, who waits; and what a policy sees of it."""
