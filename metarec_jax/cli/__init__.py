"""The `metarec` command: one module per command, `main` with their table, and `arguments` with shared code."""
