"""The meta-gradient in PyTorch alone, as its users write it."""
