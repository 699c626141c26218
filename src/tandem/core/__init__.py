"""What every other part stands on: errors, plug-ins, records, clock, configuration, hardware."""
