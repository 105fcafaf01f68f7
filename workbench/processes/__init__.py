"""How clean text becomes training rows, a loss, a likelihood and a view for samplers."""
