"""The log row, the durable spool that the gateway writes, and its way into Iceberg."""
