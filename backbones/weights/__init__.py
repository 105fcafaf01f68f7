"""Published layouts of weights, in and out."""
