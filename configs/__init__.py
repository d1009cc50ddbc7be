"""One file per experiment; each docstring has the command, the cost and the score it reached."""
