"""What the gateway answered and what people said of it."""
