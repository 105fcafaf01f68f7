"""Puzzles: tasks with an exact checker, their instances, and the corpus that makes text of them."""
