"""The dashboard: pages that the server renders, kept current by a stream. It reads, but for one button."""
