"""Where documents come from: sources are read into `Document`s, what cannot be read into `Rejected`s, and two readings are
compared by content hash."""
