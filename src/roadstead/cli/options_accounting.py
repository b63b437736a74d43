"""The options of the accounting commands: rows like those of options.py, for these alone.

They are apart because every srun builds the table of options.py as it starts.
"""

from __future__ import annotations

from roadstead.cli.getopt_long import NO_ARG, OPTIONAL, REQUIRED
from roadstead.cli.option import (
    LIST,
    SACCT,
    SACCTMGR,
    SDIAG,
    SPRIO,
    SREPORT,
    SSHARE,
    SSTAT,
    Option,
)

_ONE_CLUSTER = "no-op:the local engine is one cluster, and its history is of that alone"
_NO_SHARES = "no-op:no shares are kept, so there are none to choose from"
_NO_CALLS = "no-op:calls to the controller are not counted"
_ONE_USER = "no-op:the history is of one user's jobs"
_TABLES = SACCT | SSTAT | SSHARE | SREPORT | SACCTMGR
ALL = _TABLES | SPRIO | SDIAG

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
    Option("duplicates", "D", NO_ARG, SACCT,
           treatment="no-op:of a job that ran again its last run is kept"),
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
    # -- sstat
    Option("allsteps", "a", NO_ARG, SSTAT, "", "", "all steps of a job, the batch script's too"),
    Option("format", "o", REQUIRED, SSTAT, "", "fields", "which fields to show",
           repeat=LIST, aliases="fields"),
    Option("format", "o", REQUIRED, SSHARE, "", "fields", "which fields to show", repeat=LIST),
    Option("helpformat", "e", NO_ARG, SSTAT | SSHARE, "", "", "list the fields of --format"),
    Option("jobs", "j", REQUIRED, SSTAT, "", "ids", "these jobs or steps", repeat=LIST),
    Option("noconvert", "", NO_ARG, SSTAT, "", "", "do not convert units"),
    Option("pidformat", "i", NO_ARG, SSTAT, "", "", "show the nodes and processes of steps"),
    # -- sprio
    Option("format", "o", REQUIRED, SPRIO, "", "format", "columns to show, by %-letter"),
    Option("jobs", "j", OPTIONAL, SPRIO, "", "ids", "only these jobs"),
    Option("long", "l", NO_ARG, SPRIO | SSHARE, "", "", "show more columns"),
    Option("noheader", "h", NO_ARG, SPRIO, "", "", "no line of headings"),
    Option("norm", "n", NO_ARG, SPRIO, "", "", "show shares of the highest points there can be"),
    Option("partition", "p", REQUIRED, SPRIO, "", "names", "only jobs in these partitions"),
    Option("sort", "S", REQUIRED, SPRIO, "", "fields", "order of the lines"),
    Option("user", "u", REQUIRED, SPRIO, "", "names", "only jobs of these users", aliases="users"),
    Option("weights", "w", NO_ARG, SPRIO, "", "", "show what each factor can count at most"),
    Option("federation", "", NO_ARG, SPRIO | SREPORT, treatment=_ONE_CLUSTER),
    Option("local", "", NO_ARG, SPRIO | SREPORT, treatment=_ONE_CLUSTER),
    Option("sibling", "", NO_ARG, SPRIO, treatment=_ONE_CLUSTER),
    Option("help", "", NO_ARG, SPRIO, "", "", "show this text"),
    # -- sshare
    Option("accounts", "A", REQUIRED, SSHARE, treatment=_NO_SHARES),
    Option("all", "a", NO_ARG, SSHARE, treatment=_NO_SHARES),
    Option("partition", "m", NO_ARG, SSHARE, treatment=_NO_SHARES),
    Option("users", "u", REQUIRED, SSHARE, treatment=_NO_SHARES),
    Option("Users", "U", NO_ARG, SSHARE, treatment=_NO_SHARES),
    # -- sreport
    Option("all_clusters", "a", NO_ARG, SREPORT, treatment=_ONE_CLUSTER),
    Option("immediate", "i", NO_ARG, SREPORT | SACCTMGR, treatment="no-op:nothing is changed"),
    Option("quiet", "Q", NO_ARG, SREPORT | SACCTMGR, treatment="no-op:little is said"),
    Option("time", "t", REQUIRED, SREPORT, "", "unit",
           "Seconds, Minutes (if nothing is said), Hours or Percent"),
    Option("tres", "T", REQUIRED, SREPORT,
           treatment="refused:CPU time is what is kept of jobs"),
    # -- sacctmgr
    Option("associations", "s", NO_ARG, SACCTMGR, "", "", "show users with their associations"),
    Option("oneliner", "o", NO_ARG, SACCTMGR, treatment="no-op:every row is one line"),
    Option("readonly", "r", NO_ARG, SACCTMGR, treatment="no-op:nothing is changed"),
    # -- sdiag
    Option("all", "a", NO_ARG, SDIAG, treatment=_NO_CALLS),
    Option("reset", "r", NO_ARG, SDIAG,
           treatment="refused:what is counted comes from the journal, from midnight on"),
    Option("sort-by-id", "i", NO_ARG, SDIAG, treatment=_NO_CALLS),
    Option("sort-by-time", "t", NO_ARG, SDIAG, treatment=_NO_CALLS),
    Option("sort-by-time2", "T", NO_ARG, SDIAG, treatment=_NO_CALLS),
    Option("clusters", "M", REQUIRED, SPRIO | SSHARE | SREPORT | SDIAG, "", "names",
           "ask this cluster, of which there is one", aliases="cluster"),
    # -- all of them
    Option("noheader", "n", NO_ARG, _TABLES, "", "", "no line of headings"),
    Option("parsable", "p", NO_ARG, _TABLES, "", "", "a bar after each value"),
    Option("parsable2", "P", NO_ARG, _TABLES, "", "", "a bar between values"),
    Option("help", "h", NO_ARG, ALL & ~SPRIO, "", "", "show this text"),
    Option("usage", "U", NO_ARG, SACCT, "", "", "show a short form of the help"),
    Option("usage", "", NO_ARG, ALL & ~SACCT, "", "", "show a short form of it"),
    Option("verbose", "v", NO_ARG, ALL & ~SDIAG, "", "", "say more"),
    Option("version", "V", NO_ARG, ALL, "", "", "show the version"),
)
# fmt: on
