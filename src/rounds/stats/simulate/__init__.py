"""Seeded lives in which the production tests are run, to compare the measured rates with the stated ones."""
