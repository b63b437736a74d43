"""The options of the accounting commands: rows like those of options.py, for these alone.

They are apart because every srun builds the table of options.py as it starts.
"""

from __future__ import annotations

from roadstead.cli.getopt_long import NO_ARG, REQUIRED
from roadstead.cli.options import (
    LIST,
    SACCT,
    SDIAG,
    SPRIO,
    SREPORT,
    SSHARE,
    SSTAT,
    STRIGGER,
    Option,
)
from roadstead.cli.options import SACCTMGR as SACCTMGR

_ONE_CLUSTER = "no-op:the local engine is one cluster, and its history is of that alone"
_SOON = "refused:not supported yet on the local engine"
_ONE_USER = "no-op:the history is of one user's jobs"
_ASKED_LIVE = "no-op:the engine is asked, there is no other source"
_TABLES = SACCT | SSTAT | SSHARE | SREPORT | SACCTMGR
ALL = _TABLES | SPRIO | SDIAG | STRIGGER

# fmt: off
ROWS: tuple[Option, ...] = (
    # -- sacct
    Option("accounts", "A", REQUIRED, SACCT, "", "names", "jobs of these accounts",
           aliases="account"),
    Option("allclusters", "L", NO_ARG, SACCT, treatment=_ONE_CLUSTER),
    Option("allocations", "X", NO_ARG, SACCT, "", "", "jobs only, without their steps"),
    Option("allusers", "a", NO_ARG, SACCT, treatment=_ONE_USER),
    Option("associations", "x", REQUIRED, SACCT, "", "ids", "jobs of these associations"),
    Option("batch-script", "B", NO_ARG, SACCT, "", "", "the batch script of the jobs of --jobs"),
    Option("brief", "b", NO_ARG, SACCT, "", "", "job or step, state and exit code"),
    Option("completion", "c", NO_ARG, SACCT,
           treatment="refused:Slurm job completion is disabled"),
    Option("constraints", "C", REQUIRED, SACCT, "", "names", "jobs that asked for these features"),
    Option("delimiter", "", REQUIRED, SACCT, "", "text", "what stands between values instead of |"),
    Option("duplicates", "D", NO_ARG, SACCT, treatment="no-op:job numbers are never used twice"),
    Option("endtime", "E", REQUIRED, SACCT, "", "time", "jobs that were there before this time"),
    Option("env-vars", "", NO_ARG, SACCT,
           treatment="refused:environments, which hold secrets, are not kept after a job"),
    Option("federation", "", NO_ARG, SACCT, treatment=_ONE_CLUSTER),
    Option("file", "f", REQUIRED, SACCT, treatment="refused:the journal is the history"),
    Option("flags", "F", REQUIRED, SACCT, treatment="refused:how a job was scheduled is not kept"),
    Option("format", "o", REQUIRED, SACCT, "FORMAT", "fields", "which fields to show", repeat=LIST),
    Option("gid", "g", REQUIRED, SACCT, "", "groups", "jobs of these groups", aliases="group"),
    Option("helpformat", "e", NO_ARG, SACCT, "", "", "list the fields of --format"),
    Option("jobs", "j", REQUIRED, SACCT, "", "ids", "these jobs or steps, of any time",
           repeat=LIST),
    Option("json", "", NO_ARG, SACCT, "", "", "print JSON, in the shape of Slurm's REST interface"),
    Option("local", "", NO_ARG, SACCT, treatment=_ONE_CLUSTER),
    Option("long", "l", NO_ARG, SACCT, "", "", "show more fields"),
    Option("name", "", REQUIRED, SACCT, "", "names", "jobs of these names"),
    Option("ncpus", "I", REQUIRED, SACCT, "", "N[-M]", "jobs of so many CPUs"),
    Option("nnodes", "i", REQUIRED, SACCT, "", "N[-M]", "jobs of so many nodes"),
    Option("noconvert", "", NO_ARG, SACCT, "", "", "do not convert units"),
    Option("nodelist", "N", REQUIRED, SACCT, "", "hostlist", "jobs that ran on these nodes"),
    Option("partition", "r", REQUIRED, SACCT, "", "names", "jobs in these partitions"),
    Option("qos", "q", REQUIRED, SACCT, "", "names", "jobs of these qualities of service"),
    Option("starttime", "S", REQUIRED, SACCT, "", "time", "jobs that were there after this time"),
    Option("state", "s", REQUIRED, SACCT, "", "states", "jobs in these states", aliases="states"),
    Option("timelimit-max", "K", REQUIRED, SACCT, "", "time", "the most for --timelimit-min"),
    Option("timelimit-min", "k", REQUIRED, SACCT, "", "time", "jobs of this time limit"),
    Option("truncate", "T", NO_ARG, SACCT, "", "", "show no time outside of -S and -E"),
    Option("units", "", REQUIRED, SACCT, "", "K|M|G|T|P", "show memory in this unit"),
    Option("user", "u", REQUIRED, SACCT, "", "names", "jobs of these users", aliases="uid users"),
    Option("wckeys", "W", REQUIRED, SACCT, "", "keys", "jobs of these keys"),
    Option("whole-hetjob", "", REQUIRED, SACCT, treatment="no-op:components are shown together"),
    Option("yaml", "", NO_ARG, SACCT, "", "", "the same as YAML"),
    Option("clusters", "M", REQUIRED, SACCT, "", "names", "only if this cluster is named, or all",
           aliases="cluster"),
    # -- all of them
    Option("noheader", "n", NO_ARG, _TABLES, "", "", "no line of headings"),
    Option("parsable", "p", NO_ARG, _TABLES, "", "", "a bar after each value"),
    Option("parsable2", "P", NO_ARG, _TABLES, "", "", "a bar between values"),
    Option("help", "h", NO_ARG, ALL & ~SPRIO, "", "", "show this text"),
    Option("usage", "U", NO_ARG, SACCT, "", "", "show a short form of the help"),
    Option("usage", "", NO_ARG, ALL & ~SACCT, "", "", "show a short form of it"),
    Option("verbose", "v", NO_ARG, ALL, "", "", "say more"),
    Option("version", "V", NO_ARG, ALL, "", "", "show the version"),
)
# fmt: on
