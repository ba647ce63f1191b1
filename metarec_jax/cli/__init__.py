"""The `metarec` command: one file a command."""
