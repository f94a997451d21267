"""`llmops …`: thin commands over the packages below; whatever materialises does it through the Dagster instance."""
