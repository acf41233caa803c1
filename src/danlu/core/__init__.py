"""The ground that every stage stands on: config, artifacts, ledger, seeds, events, errors."""
