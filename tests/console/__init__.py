"""The daily work from the command line: against a real upstream, and a stand-in where a server must misbehave."""
