"""Kind `graphql`: any GraphQL API, described in YAML."""
