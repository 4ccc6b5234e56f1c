"""APIs whose calls have a method and parameters, as YAML describes them: kinds `jsonrpc` and `xmlrpc`."""
