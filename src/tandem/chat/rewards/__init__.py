"""Reward functions by name: each file exposes `score(prompts, responses, answers) -> scores`."""
