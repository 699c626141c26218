"""Days in no time: workloads, the simulator, replay, figures."""
