"""The APIs that rows are delivered to: one file each, request and response logic without I/O."""
