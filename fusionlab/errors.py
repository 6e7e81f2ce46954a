"""The one exception for input that cannot be used, raised with a message that teaches."""


class InputError(ValueError):
    """What the user gave (data, configuration, checkpoint) cannot be used.

    The message says what was expected, what was found, where, and what to do. The command line
    prints it without a traceback and exits with status 2.
    """
