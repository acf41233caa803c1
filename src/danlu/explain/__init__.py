"""Why did it say that? What each part of a text or picture did to a classifier's answer, and whether that is so."""
