"""From a question to an answer on one release: the path that the gateway and evaluation share."""
