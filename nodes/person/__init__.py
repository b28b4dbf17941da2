"""Nodes for systems that are trained for one person."""
