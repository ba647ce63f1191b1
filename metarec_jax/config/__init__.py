"""Every choice of a run, as frozen dataclasses that check themselves."""
