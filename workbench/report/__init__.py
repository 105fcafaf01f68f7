"""Reports on finished runs: tables and plots made of what the run folders hold, never of new computation."""
