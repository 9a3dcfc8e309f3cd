"""Which agent this is, and which others it can speak with."""

VERSION = "0.1.0"
# Grows by one with each release that changes what control and agents say to each other. One release apart is borne:
# unknown fields are dropped and missing ones take their defaults (`cloud.common.wire`).
PROTOCOL = 1


def current() -> str:
    """The release and, in a bundle, the first digits of the hash of its content: `0.1.0+1a2b3c4d5e6f`."""
    try:
        # Written by the bundle; a checkout has none.
        from mica_agent_build import BUILD
    except ImportError:
        return f"{VERSION}+dev"
    return f"{VERSION}+{BUILD}"


def understands(protocol: int) -> bool:
    """Whether the other end speaks as this release, the one before it or the one after it does."""
    return abs(protocol - PROTOCOL) <= 1
