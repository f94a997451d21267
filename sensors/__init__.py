"""What starts work by itself: outside events, one file each."""
