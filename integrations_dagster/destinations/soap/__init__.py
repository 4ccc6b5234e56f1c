"""Kind `soap`: an API that a WSDL describes, as YAML says which of its operations deliver rows."""
