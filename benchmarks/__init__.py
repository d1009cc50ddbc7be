"""Speed: figures measured here, with the command that prints them."""
