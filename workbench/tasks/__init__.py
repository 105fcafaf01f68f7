"""Downstream tasks: runs as a model of lm-evaluation-harness, its tasks from local files, paired comparisons."""
