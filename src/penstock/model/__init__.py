"""Pure values and decisions: no I/O, no thread, no clock, no environment."""
