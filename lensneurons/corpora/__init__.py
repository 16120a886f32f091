"""Texts: the same items in several languages, from any format, checked once."""
