"""The meta-gradient with other people's packages for meta-learning."""
