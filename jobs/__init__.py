"""What runs together, and on which schedule."""
