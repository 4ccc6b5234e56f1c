"""Kind `http`: any REST API, described in YAML."""
