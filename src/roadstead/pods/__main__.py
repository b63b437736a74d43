"""The program of a step that is a pod: it runs the plan that it is given, one pod or several."""

from __future__ import annotations

import os
import sys

from roadstead.host import linux
from roadstead.pods import plan as plans
from roadstead.pods.output import say
from roadstead.pods.runner import Runner
from roadstead.step import record


def main(argv: list[str]) -> int:
    """Run the plan in the script ``argv[0]``, or, without one, in the environment."""
    if argv:
        with open(argv[0], encoding="utf-8") as file:
            plan = plans.of_script(file.read())
    else:
        plan = plans.of_environment(os.environ)
    for name in [name for name in os.environ if name.startswith(f"{plans.VARIABLE}_")]:
        del os.environ[name]
    linux.set_process_name("roadstead-pod")
    step = os.environ.get(record.MARK, "")
    if not step:
        say("pod: error: this is not a step of a job")
        return 1
    if len(plan.jobs) == 1 and not plan.jobs[0].retried:
        return Runner(plan.jobs[0].pod, plan, step).run()
    from roadstead.pods.batch import Batch

    return Batch(plan, step).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
