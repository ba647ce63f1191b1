"""Errors that a user can cause and mend, and the wish to stop."""

import signal


class MetarecError(Exception):
    """A mistake in the input: the message names the value, the place and the remedy.

    The command line prints the message without a traceback and exits with status 2.
    """


class Stopped(BaseException):
    """A signal asked the process to end, and what was under way is saved or cleaned up.

    Args:
        number: the signal.
    """

    def __init__(self, number: signal.Signals):
        super().__init__(number)
        self.number = number
