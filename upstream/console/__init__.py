"""The daily work from a terminal: a client of the management API, which it knows by its paths and answers alone."""
