"""Adapters: one package per outside system; importing this package costs nothing."""
