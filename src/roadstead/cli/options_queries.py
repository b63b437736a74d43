"""The options of the commands that ask and that change: squeue, sinfo, scontrol, scancel, sattach.

They are apart because every srun builds its own table as it starts.
"""

from __future__ import annotations

from roadstead.cli.getopt_long import NO_ARG, OPTIONAL, REQUIRED
from roadstead.cli.option import (
    COUNT,
    FOR_ROOT,
    LISTS,
    NO_CLUSTERS,
    NO_RESERVATIONS,
    ONE_NODE,
    SAME_LIBRARIES,
    SATTACH,
    SBCAST,
    SCANCEL,
    SCONTROL,
    SINFO,
    SQUEUE,
    Option,
)

_ACCOUNTS = "refused:the local engine keeps no accounts, so none can be selected"
_UNSENT = "no-op:a copy on this machine is not sent"
_ALL_SHOWN = "no-op:nothing is hidden"

# fmt: off
# One row a line is what makes this a table; the formatter would give each field a line of its own.
ROWS: tuple[Option, ...] = (
    # squeue and sinfo.
    Option("Format", "O", REQUIRED, LISTS, "SQUEUE_FORMAT2", "fields", "columns to show, by name"),
    Option("Node", "N", NO_ARG, SINFO, "", "", "one line a node"),
    Option("accounts", "A", REQUIRED, SQUEUE, "SQUEUE_ACCOUNT", "names",
           "only jobs of these accounts"),
    Option("array", "r", NO_ARG, SQUEUE, "ARRAY", "", "one line for each element of an array"),
    Option("array-unique", "", NO_ARG, SQUEUE, "ARRAY_UNIQUE",
           treatment="no-op:elements of an array that wait are one line already"),
    Option("dead", "d", NO_ARG, SINFO, "", "", "only nodes that do not respond"),
    Option("exact", "e", NO_ARG, SINFO, "", "", "group only nodes that are all alike"),
    Option("format", "o", REQUIRED, LISTS, "FORMAT", "format", "columns to show, by %-letter"),
    Option("iterate", "i", REQUIRED, LISTS, "", "seconds", "list again and again"),
    Option("jobs", "j", OPTIONAL, SQUEUE, "", "ids", "only these jobs"),
    Option("json", "", NO_ARG, LISTS, "", "", "print JSON, in the shape of Slurm's REST interface"),
    Option("licenses", "L", REQUIRED, SQUEUE, "LICENSES", "names",
           "only jobs that use these licences"),
    Option("list-reasons", "R", NO_ARG, SINFO, "", "", "why nodes are drained or down"),
    Option("long", "l", NO_ARG, LISTS, "", "", "show more columns"),
    Option("name", "n", REQUIRED, SQUEUE, "SQUEUE_NAMES", "names", "only jobs of these names"),
    Option("noconvert", "", NO_ARG, LISTS, help="do not convert units"),
    Option("nodelist", "w", REQUIRED, SQUEUE, metavar="hostlist", help="jobs on these nodes",
           aliases="nodes node"),
    Option("nodes", "n", REQUIRED, SINFO, "", "hosts", "only these nodes"),
    Option("noheader", "h", NO_ARG, LISTS, "", "", "no line of headings"),
    Option("partition", "p", REQUIRED, SQUEUE, "PARTITION", "names",
           "only jobs in these partitions", aliases="partitions"),
    Option("partition", "p", REQUIRED, SINFO, "PARTITION", "names", "only these partitions"),
    Option("priority", "P", NO_ARG, SQUEUE, "PRIORITY", treatment="no-op:a job has one partition"),
    Option("qos", "q", REQUIRED, SQUEUE, "QOS", "names", "only jobs of these qualities of service"),
    Option("reservation", "R", REQUIRED, SQUEUE, "", "name",
           "only jobs in this reservation: there are none"),
    Option("reservation", "T", NO_ARG, SINFO, "", "", "show reservations: there are none"),
    Option("responding", "r", NO_ARG, SINFO, treatment="no-op:the node always responds"),
    Option("sibling", "", NO_ARG, SQUEUE | SCONTROL, "SQUEUE_SIBLING", treatment=_ALL_SHOWN),
    Option("sort", "S", REQUIRED, SQUEUE, "SORT", "fields", "order of the lines"),
    Option("sort", "S", REQUIRED, SINFO, "SORT", "fields", "order of the lines"),
    Option("start", "", NO_ARG, SQUEUE, help="expected start times of pending jobs"),
    Option("states", "t", REQUIRED, SQUEUE, "STATES", "states", "jobs in these states, or all"),
    Option("states", "t", REQUIRED, SINFO, "", "states", "only nodes in these states"),
    Option("steps", "s", OPTIONAL, SQUEUE, "", "ids", "show steps: all, or these"),
    Option("summarize", "s", NO_ARG, SINFO, "", "", "one line a partition, with counts of nodes"),
    Option("users", "u", REQUIRED, SQUEUE, "USERS", "names", "jobs of these users", aliases="user"),
    Option("yaml", "", NO_ARG, LISTS, "", "", "the same as YAML"),

    # sattach.
    Option("error-filter", "", REQUIRED, SATTACH, "", "task", "only this task's standard error"),
    Option("input-filter", "", REQUIRED, SATTACH, "", "task", "standard input for this task only"),
    Option("label", "l", NO_ARG, SATTACH, "", "", "put its task before each line"),
    Option("layout", "", NO_ARG, SATTACH, "", "", "show which tasks are where, and attach to none"),
    Option("output-filter", "", REQUIRED, SATTACH, "", "task", "only this task's standard output"),
    Option("pty", "", NO_ARG, SATTACH, "", "", "attach to a step's pseudo-terminal"),
    Option("quiet", "Q", NO_ARG, SATTACH, "", "", "say less"),
    Option("verbose", "v", NO_ARG, SATTACH, "", "", "say more", repeat=COUNT),
    Option("help", "h", NO_ARG, SATTACH, "", "", "show this text"),
    Option("usage", "u", NO_ARG, SATTACH, "", "", "show a short form of it"),
    Option("version", "V", NO_ARG, SATTACH, "", "", "show the version"),

    # sbcast.
    Option("compress", "C", OPTIONAL, SBCAST, "COMPRESS", treatment=_UNSENT),
    Option("exclude", "", REQUIRED, SBCAST, "EXCLUDE", treatment=SAME_LIBRARIES),
    Option("fanout", "F", REQUIRED, SBCAST, "FANOUT", treatment=_UNSENT),
    Option("force", "f", NO_ARG, SBCAST, "FORCE", "", "replace a file that is there"),
    Option("jobid", "j", REQUIRED, SBCAST, "", "job[+component][.step]",
           "whose nodes the file goes to"),
    Option("preserve", "p", NO_ARG, SBCAST, "PRESERVE", "",
           "the copy has the times of the file too"),
    Option("send-libs", "", OPTIONAL, SBCAST, "SEND_LIBS", treatment=SAME_LIBRARIES),
    Option("size", "s", REQUIRED, SBCAST, "SIZE", treatment=_UNSENT),
    Option("timeout", "t", REQUIRED, SBCAST, "TIMEOUT", treatment=_UNSENT),
    Option("verbose", "v", NO_ARG, SBCAST, "", "", "say more", repeat=COUNT),
    Option("help", "", NO_ARG, SBCAST, "", "", "show this text"),
    Option("usage", "", NO_ARG, SBCAST, "", "", "show a short form of it"),
    Option("version", "V", NO_ARG, SBCAST, "", "", "show the version"),

    # scancel.
    Option("account", "A", REQUIRED, SCANCEL, "ACCOUNT", treatment=_ACCOUNTS),
    Option("batch", "b", NO_ARG, SCANCEL, "BATCH", "", "signal the batch script only"),
    Option("ctld", "", NO_ARG, SCANCEL, "CTLD", treatment="no-op:the controller sends signals"),
    Option("full", "f", NO_ARG, SCANCEL, "FULL", "", "signal the batch script and all steps"),
    Option("hurry", "H", NO_ARG, SCANCEL, "HURRY", treatment="no-op:there is nothing to stage out"),
    Option("interactive", "i", NO_ARG, SCANCEL, "INTERACTIVE", "", "ask before each job"),
    Option("name", "n", REQUIRED, SCANCEL, "NAME", "name", "jobs of this name", aliases="jobname"),
    Option("nodelist", "w", REQUIRED, SCANCEL, metavar="hostlist", help="jobs on these nodes only"),
    Option("partition", "p", REQUIRED, SCANCEL, "PARTITION", "name", "only jobs in this partition"),
    Option("qos", "q", REQUIRED, SCANCEL, "QOS", treatment=_ACCOUNTS),
    Option("reservation", "R", REQUIRED, SCANCEL, treatment=NO_RESERVATIONS),
    Option("sibling", "", REQUIRED, SCANCEL, treatment=NO_CLUSTERS),
    Option("signal", "s", REQUIRED, SCANCEL, "", "signal", "signal to send; else the job ends"),
    Option("state", "t", REQUIRED, SCANCEL, "STATE", "state", "only jobs in this state"),
    Option("user", "u", REQUIRED, SCANCEL, "USER", "name", "only jobs of this user"),
    Option("wckey", "", REQUIRED, SCANCEL, "WCKEY", treatment=_ACCOUNTS),

    # scontrol, and what several of the commands that ask have in common.
    Option("all", "a", NO_ARG, LISTS | SCONTROL, "SQUEUE_ALL SINFO_ALL", "", "show all partitions"),
    Option("details", "d", NO_ARG, SCONTROL, "", "", "show more of a job", repeat=COUNT),
    Option("federation", "", NO_ARG, LISTS | SCONTROL, "SQUEUE_FEDERATION SINFO_FEDERATION",
           treatment=_ALL_SHOWN),
    Option("future", "F", NO_ARG, SCONTROL, treatment=ONE_NODE),
    Option("hide", "", NO_ARG, LISTS | SCONTROL, treatment=_ALL_SHOWN),
    Option("local", "", NO_ARG, LISTS | SCONTROL, "SQUEUE_LOCAL SINFO_LOCAL", treatment=_ALL_SHOWN),
    Option("me", "", NO_ARG, SQUEUE | SCANCEL, "", "", "only jobs of mine"),
    Option("oneliner", "o", NO_ARG, SCONTROL, "", "", "one line a record"),
    Option("uid", "u", REQUIRED, SCONTROL, treatment=FOR_ROOT),
)
# fmt: on
