"""Mails and webhook calls about what a person should know: written down first, sent in digests, never sent twice."""
