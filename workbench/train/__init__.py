"""Training: one loop, its parts, and what it leaves on the disk."""
