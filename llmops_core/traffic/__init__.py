"""What the gateway answered and what people said of it: the log row, the durable spool that the gateway writes, its way
into the lakehouse's storage, and the reading of it there."""
