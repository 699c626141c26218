"""The deterministic state machine: events in, decisions and instructions out."""
