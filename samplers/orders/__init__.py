"""Orders: which masked positions are written next."""
