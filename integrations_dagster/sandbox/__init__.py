"""Local stand-ins of the destinations, for the demo, tests and rehearsal. Loopback only."""
