"""`python -m lebench_sb.corpora.miniature --output DIR [--corpora A,B] [--seed 0] [--scale 1]`"""

import argparse
import sys

from lebench_sb.core.errors import exit_code, one_line, printable_output
from lebench_sb.corpora.miniature.build import build_miniature
from lebench_sb.corpora.miniature.layouts import names
from lebench_sb.corpora.miniature.texts import TOGETHER


def main(argv=None):
    """Builds or reuses the miniature, prints one line about it; exit codes 0, 1 (failed) and 2 (usage)."""
    parser = argparse.ArgumentParser(
        prog="python -m lebench_sb.corpora.miniature", description="Build the miniature corpus."
    )
    parser.add_argument("--output", required=True, help="folder to write the corpora into")
    parser.add_argument("--seed", type=int, default=0, help="decides every word and every sample (0)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="multiplies the minutes of each part (1.0: about 2 hours)"
    )
    parser.add_argument(
        "--workers", type=int, help="processes; changes the time, not the result (one per core)"
    )
    parser.add_argument(
        "--corpora", default=",".join(TOGETHER), help=f"of {', '.join(names())}, or all (%(default)s)"
    )
    printable_output()
    options = parser.parse_args(argv)
    corpora = names() if options.corpora == "all" else options.corpora.split(",")
    if not 0 < options.scale <= 1000 or (options.workers is not None and options.workers < 1):
        parser.error("--scale must be positive, 1000 at most, and --workers at least 1")
    try:
        facts = build_miniature(options.output, options.seed, options.scale, options.workers, corpora)
    except ValueError as error:
        sys.exit(_fail(error, 2))
    except (OSError, RuntimeError) as error:
        if (code := exit_code(error)) is None and not isinstance(error, RuntimeError):
            raise
        sys.exit(_fail(one_line(error), code or 1))
    verb = "already built, reused" if facts["reused"] else "built"
    sizes = [
        f"{facts['hours']:.2f} h",
        f"{facts['utterances']} utterances",
        f"{facts['voices']} voices",
    ]
    sizes.append(f"{facts['word_forms']} word forms")
    if "oov_percent" in facts:
        sizes.append(f"{facts['oov_percent']} % of Common Voice's test words unseen in its train")
    sys.stdout.write(f"{options.output}: {verb}: {', '.join(facts['corpora'])}: {', '.join(sizes)}\n")


def _fail(error, code):
    sys.stderr.write(f"error: {error}\n")
    return code


if __name__ == "__main__":
    main()
