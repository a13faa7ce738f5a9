"""Turns the measured JSON into figures and pages."""
