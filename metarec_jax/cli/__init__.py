"""The `metarec` command: one module per command, `main` with the table of them, `arguments` with what they share."""
