"""One scheduler for hybrid jobs: state machine, policies, engines, simulator, daemon."""
