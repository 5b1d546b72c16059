"""Train every model with many seeds, in parallel."""

import os
import signal
import sys
from contextlib import closing
from pathlib import Path

from mnist_cnn.common.processors import usable_processors
from mnist_cnn.engine.device import prepare
from mnist_cnn.settings.params import load
from mnist_cnn.study.parallel import Done
from mnist_cnn.study.plan import plan
from mnist_cnn.study.records import data_digest, fingerprint, fingerprint_of_record, remove_other_records, save_record
from mnist_cnn.study.run import run_trials
from mnist_cnn.study.settings import load_study
from stages import run


def main(params: Path, study: Path, splits: Path, computing: Path, records: Path) -> None:
    """Train every model with many seeds, in parallel; go on where an earlier call stopped.

    As many at a time as there are processors, or as the environment's JOBS says. A trial that fails is named at the
    end and leaves the others alone.

    Args:
        params: the settings, params.yaml.
        study: the study's settings.
        splits: the folder with the splits and their statistics.
        computing: the versions of libraries that results follow from.
        records: written: the folder of trials' records.
    """
    # SIGTERM ends the processes that train, too; so does SIGINT, which a shell has its background jobs ignore.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    settings = load(params)
    trials = plan(settings, load_study(study, settings))
    jobs = number_of_jobs(os.environ.get("JOBS", ""))
    data = data_digest(splits, computing)
    execution = prepare(settings.train)
    fingerprints = {name: fingerprint(trial, data, execution) for name, trial in trials.items()}
    todo = {name: trial for name, trial in trials.items() if fingerprint_of_record(records, name) != fingerprints[name]}
    print(f"[INFO] {len(trials)} trials, {len(trials) - len(todo)} of them done; {jobs} at a time", flush=True)

    failed = {}
    try:
        with closing(run_trials(todo, data, splits, computing, settings.train, jobs)) as outcomes:
            for name, outcome in outcomes:
                if not isinstance(outcome, Done):
                    failed[name] = outcome.reason
                elif outcome.result["fingerprint"] != fingerprints[name]:
                    failed[name] = "the code was changed before it ran"
                else:
                    save_record(records, name, outcome.result)
    except KeyboardInterrupt:
        print("interrupted: 'make study' goes on from here", file=sys.stderr)
        raise
    if failed:
        sys.exit("\n".join(f"error: {name} failed: {reason}" for name, reason in failed.items()))
    remove_other_records(records, trials)


def number_of_jobs(wanted: str) -> int:
    """How many trials to run at a time; as many as there are processors, where nothing is said."""
    if not wanted:
        return usable_processors()
    if not wanted.isdecimal() or not int(wanted):
        sys.exit(f"error: JOBS: {wanted!r} is not allowed: a whole number, at least 1")
    return int(wanted)


if __name__ == "__main__":
    run(main)
