"""The record that a finished artifact carries: a signed statement of how it was made, and how that is checked."""
