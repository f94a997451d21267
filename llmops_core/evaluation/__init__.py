"""Evaluation: labelled questions, what a release retrieves and answers for them, scores with their uncertainty, reports."""
