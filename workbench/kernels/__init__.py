"""Fast ways of computing, each beside its plain-torch reference."""
