"""Which agent this is."""

VERSION = "0.1.0"


def current() -> str:
    """The release and, in a bundle, the first digits of the hash of its content: `0.1.0+1a2b3c4d5e6f`."""
    try:
        # Written by the bundle; a checkout has none.
        from mica_agent_build import BUILD
    except ImportError:
        return f"{VERSION}+dev"
    return f"{VERSION}+{BUILD}"
