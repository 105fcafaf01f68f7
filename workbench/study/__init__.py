"""Studies: several grids over one pair of runs, and claims that their figures bear out or refute."""
