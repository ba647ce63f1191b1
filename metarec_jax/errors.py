"""Errors that a user can cause and mend."""


class MetarecError(Exception):
    """A mistake in the input: the message names the value, the place and the remedy.

    The command line prints the message without a traceback and exits with status 2.
    """
