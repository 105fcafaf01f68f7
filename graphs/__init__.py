"""Forward processes: graphs (absorbing, uniform, any rate matrix) and noise schedules. Imports no part."""
