"""The `asyncdiff` script, and `python -m asyncdiff_cli` for launchers that start modules."""

try:
    import os
    import sys

    if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False):
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        if sys.path[0] != package:
            del sys.path[0]  # the current directory, whose files would stand in for modules

    import signal
except KeyboardInterrupt:
    raise SystemExit(130) from None


def main() -> None:
    """Run this process's command line. There is nothing to tidy up before it has been imported."""
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: os._exit(128 + number))

    from asyncdiff_cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
