"""Metrics of single images, as pure functions."""
