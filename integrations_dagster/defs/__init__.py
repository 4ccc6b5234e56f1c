"""The syncs of this project, one folder each."""
