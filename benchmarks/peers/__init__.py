"""The meta-gradient with other packages for meta-learning."""
