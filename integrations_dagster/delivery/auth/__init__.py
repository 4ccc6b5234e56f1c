"""The kinds of authentication: what each takes, how it gets tokens, and how processes share them."""
