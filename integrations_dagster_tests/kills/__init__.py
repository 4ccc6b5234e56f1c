"""Processes that are killed, and what is left of their work."""

FOLDER = "TEST_SHOP"
"""The environment variable that tells a code location its folder."""
JOB = "sync_crm_contacts"
SYNC = "crm_contacts"
