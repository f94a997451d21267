"""Where documents come from: sources are read into documents, and what cannot be read is rejected with a reason."""
