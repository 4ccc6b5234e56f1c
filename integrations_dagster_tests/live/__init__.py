"""The real thing: the webserver, the daemon and the sandbox as processes, driven through the webserver's GraphQL."""
