"""Published weights, in and out: from the hub, a file or a folder to a run; from a run to a folder that others load."""
