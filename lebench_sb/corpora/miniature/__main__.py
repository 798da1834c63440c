"""`python -m lebench_sb.corpora.miniature --output DIR [--seed 0] [--scale 1.0] [--workers N]`"""

import argparse
import sys

from lebench_sb.corpora.miniature.build import build_miniature


def main(argv=None):
    """Builds or reuses the miniature, prints one line about it; exit codes 0, 1 (failed) and 2 (usage)."""
    parser = argparse.ArgumentParser(
        prog="python -m lebench_sb.corpora.miniature", description="Build the miniature corpus."
    )
    parser.add_argument("--output", required=True, help="folder to write fr/ and mls_french/ into")
    parser.add_argument("--seed", type=int, default=0, help="decides every word and every sample (0)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="multiplies the minutes of each part (1.0: about 2 hours)"
    )
    parser.add_argument(
        "--workers", type=int, help="processes; changes the time, not the result (one per core)"
    )
    options = parser.parse_args(argv)
    if options.scale <= 0 or (options.workers is not None and options.workers < 1):
        parser.error("--scale must be positive and --workers at least 1")
    try:
        made = build_miniature(options.output, options.seed, options.scale, options.workers)
    except ValueError as error:
        sys.exit(_fail(error, 2))
    except RuntimeError as error:
        sys.exit(_fail(error, 1))
    verb = "already built, reused" if made["reused"] else "built"
    sys.stdout.write(
        f"{options.output}: {verb}: {made['hours']:.2f} h, {made['utterances']} utterances, "
        f"{made['voices']} voices, "
        f"{made['word_forms']} word forms, {made['oov_percent']} % of test words unseen in labelled train\n"
    )


def _fail(error, code):
    sys.stderr.write(f"{error}\n")
    return code


if __name__ == "__main__":
    main()
