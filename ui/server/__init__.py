"""The place that the app runs in: what a host sets, what visitors may take, and what guards both."""
