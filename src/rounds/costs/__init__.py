"""The ledger of seconds and bytes."""
