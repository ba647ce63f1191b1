"""From a finished run to recommendations."""
