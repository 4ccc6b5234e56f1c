"""What carries requests: HTTP, databases, files."""
