"""Telling anyone: subscriptions, the outbox, delivery."""
