"""Who does the work of a grid: this machine, a cluster."""
