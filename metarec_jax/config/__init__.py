"""Options of a run and of pretraining, as frozen dataclasses that check their values, and their JSON."""
