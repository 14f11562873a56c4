"""The app: builds pages, draws figures, keeps sessions; calls `transact` and nothing below it."""
