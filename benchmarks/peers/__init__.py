"""What this code is compared with: the same models in other frameworks, written to be fast there."""
