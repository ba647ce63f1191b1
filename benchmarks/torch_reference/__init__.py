"""The meta-gradient in PyTorch alone: what its users would write."""
