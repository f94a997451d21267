"""Cases, results and reports."""
