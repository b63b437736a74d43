"""oci.conf: the grammar row by row, the keys, which commands go together, the guide's samples."""

from __future__ import annotations

import errno
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from roadstead.core.grammar import BLANKS, MAX_INCLUDES, assignments, logical_lines, written
from roadstead.errors import ConfigError
from roadstead.oci import conf
from roadstead.oci.conf import COMMANDS, KEYS, EnvFile, OciConf, parse

GUIDE = Path(__file__).parent.parent / "data" / "guide"
RUN = 'RunTimeRun="r"\nRunTimeKill="k"\nRunTimeDelete="d"\n'
CREATE = 'RunTimeCreate=c\nRunTimeStart=s\nRunTimeQuery=q\nRunTimeKill="k"\nRunTimeDelete="d"\n'


def no_file(path: str) -> str:
    raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)


def pairs(text: str, **files: str) -> list[tuple[str, str]]:
    """The key and value of every assignment; ``files`` can be included, as NAME.conf."""

    def read(path: str) -> str:
        name = path.removeprefix("/etc/").removesuffix(".conf")
        return files[name] if name in files else no_file(path)

    return [(entry.key, entry.value) for entry in assignments(text, "/etc/oci.conf", read)]


def refused(text: str, read: conf.Read = no_file) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, "/etc/oci.conf", read)
    assert caught.value.hint
    return caught.value


def complete(text: str) -> OciConf:
    """``text`` in a file that sets what every file has to set."""
    return parse(text + "\n" + RUN, "/etc/oci.conf", no_file)


# -- the grammar


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Key=value", [("Key", "value")]),
        ("  Key \t= value\t", [("Key", "value")]),
        ("A_1.b=x", [("A_1.b", "x")]),
        ('Key="two words"', [("Key", "two words")]),
        ('Key=" kept "', [("Key", " kept ")]),
        ('Key=""', [("Key", "")]),
        ("Key='a'", [("Key", "'a'")]),
        ("Key=\"sh -c 'a b'\"", [("Key", "sh -c 'a b'")]),
        ("Key=a=b", [("Key", "a=b")]),
        ("Key=a\r\nOther=b\r\n", [("Key", "a"), ("Other", "b")]),
        ('Key="a b"\r\n', [("Key", "a b")]),
        ("\n \t\n# nothing\n", []),
        ("Key=a # comment", [("Key", "a")]),
        ('Key="a" # "comment"', [("Key", "a")]),
        ("Key=a#b", [("Key", "a")]),
        (r"Key=a\#b", [("Key", "a#b")]),
        (r"Key=a\\#b", [("Key", "a\\")]),
        (r"Key=a\\\#b", [("Key", r"a\#b")]),
        (r"Key=^SLURM_\\.", [("Key", r"^SLURM_\.")]),
        (r"Key=a\nb", [("Key", "anb")]),
        ("Key=a\\\nb", [("Key", "ab")]),
        ('Key="a \\\n  b"', [("Key", "a   b")]),
        ("Key=a\\  \nb", [("Key", "ab")]),
        ("Key=a\\\r\nb", [("Key", "ab")]),
        ("Key=a\\\\\nOther=b", [("Key", "a\\"), ("Other", "b")]),
        ("Key=a\\ # comment\nb", [("Key", "ab")]),
        ("# comment \\\nKey=a", [("Key", "a")]),
        ("Key=a\\\n# comment\nOther=b", [("Key", "a"), ("Other", "b")]),
        ("Key=a\\", [("Key", "a")]),
        ("Key=a\N{NO-BREAK SPACE}b", [("Key", "a\N{NO-BREAK SPACE}b")]),
        ("Key=a\N{LINE SEPARATOR}b", [("Key", "a\N{LINE SEPARATOR}b")]),
        ("Key=a\nkey=b\nKEY=c", [("Key", "a"), ("key", "b"), ("KEY", "c")]),
    ],
)
def test_a_line_is_read_as_slurm_reads_it(text, expected):
    assert pairs(text) == expected


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        ("Key=crun run", "Key: unexpected text after the value: run", 'Key="crun run"'),
        ("Key=env A=b x", "unexpected text after the value: A=b x", 'Key="env A=b x"'),
        (r"Key=a \# b", "unexpected text after the value: # b", r'Key="a \# b"'),
        ('Key="a" b', "unexpected text after the value: b", "one key to a line"),
        ('Key="a" Other="b"', 'unexpected text after the value: Other="b"', "one key to a line"),
        ('Key="a"b', "unexpected text after the value: b", "one key to a line"),
        ('Key="sh -c "a b""', "a double quote cannot be part", "Key=\"sh -c 'a b'\""),
        ('Key="sh -c \\"a b\\""', "a double quote cannot be part", "Key=\"sh -c 'a b'\""),
        ('Key=sh -c "a b"', "a double quote cannot be part", "Key=\"sh -c 'a b'\""),
        ('Key=a"b', "a double quote cannot be part", "use single quotes inside"),
        ('Key="a # b"', "the value was cut by a comment: a", r"write \#"),
        ('Key="a \\ # b"\nc', "the value was cut by a comment: a c", r"write \#"),
        ("Key=", "Key has no value", "remove the line"),
        ("Key= # nothing", "Key has no value", "remove the line"),
        ("Key+=a", "Key+= is not understood", "write Key=VALUE"),
        ("crun run", "neither KEY=VALUE nor include FILE: crun run", "write KEY="),
        ("Two words=a", "neither KEY=VALUE nor include FILE: Two words=a", "write KEY="),
        ("=a", "neither KEY=VALUE nor include FILE: =a", "write KEY="),
        (" include x", "neither KEY=VALUE nor include FILE: include x", "first column"),
        ("Key=a\0b", "a NUL byte: this is not a text file", ""),
    ],
)
def test_a_line_that_is_refused_says_what_to_type(text, sentence, hint):
    with pytest.raises(ConfigError) as caught:
        pairs(text)
    assert sentence in str(caught.value)
    assert hint in caught.value.hint
    assert (caught.value.path, caught.value.line) == ("/etc/oci.conf", 1)


def test_a_hint_of_many_words_does_not_repeat_the_whole_line():
    with pytest.raises(ConfigError, match=r": x{60}…$"):
        pairs("x" * 200)


def test_an_error_points_at_the_first_line_of_a_continued_one():
    error = refused(RUN + "\n# comment\nContainerPath=a \\\n  b \\\n  c\n")
    assert error.line == 6
    assert str(error).startswith("/etc/oci.conf:6: ContainerPath: unexpected text")


def comment_by_parity(line: str) -> str:
    """Slurm's rule for a comment, by counting backslashes."""
    for position, character in enumerate(line):
        before = line[:position]
        if character == "#" and (len(before) - len(before.rstrip("\\"))) % 2 == 0:
            return before
    return line


def unescaped(line: str) -> str:
    found, characters = "", iter(line)
    for character in characters:
        found += next(characters, "") if character == "\\" else character
    return found


@given(st.lists(st.text('\\#"a ', max_size=8), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
@example(["\\", "\\#", "\\\\#"])
def test_comments_continuations_and_escapes_agree_with_counting_backslashes(physical):
    expected, joined = [], []
    for line in physical:
        kept = comment_by_parity(line)
        trimmed = kept.rstrip(BLANKS)
        if (len(trimmed) - len(trimmed.rstrip("\\"))) % 2:
            joined.append(trimmed[:-1])
        else:
            expected.append(unescaped("".join([*joined, kept])))
            joined = []
    if joined:
        expected.append(unescaped("".join(joined)))
    assert [line.text for line in logical_lines("\n".join(physical))] == expected


@given(st.text(st.characters(exclude_characters='"\n\0', codec="utf-8"), min_size=1))
@settings(max_examples=60, deadline=None)
@example("a\\")
@example("\\#' #\\")
def test_what_a_hint_tells_to_write_is_read_back(value):
    assert pairs(written("Key", value)) == [("Key", value)]


# -- include


def test_an_included_file_stands_where_it_is_named():
    text = "A=1\ninclude site.conf\nC=3\nINCLUDE\t/etc/last.conf  # comment"
    assert pairs(text, site="B=2", last="D=4") == [("A", "1"), ("B", "2"), ("C", "3"), ("D", "4")]


def test_an_include_is_relative_to_the_file_that_names_it():
    files = {"/etc/sub/a.conf": "include b.conf", "/etc/sub/b.conf": "Key=b"}
    found = assignments("include sub/a.conf", "/etc/oci.conf", files.__getitem__)
    assert [(entry.key, entry.path, entry.line) for entry in found] == [
        ("Key", "/etc/sub/b.conf", 1)
    ]


def test_a_file_without_a_directory_includes_from_the_working_directory():
    found = assignments("include a.conf", "oci.conf", {"a.conf": "Key=a"}.__getitem__)
    assert [entry.path for entry in found] == ["a.conf"]


def test_the_same_file_may_be_included_twice_but_not_within_itself():
    assert pairs("include a.conf\ninclude a.conf", a="A=1") == [("A", "1"), ("A", "1")]
    with pytest.raises(ConfigError, match=r"^/etc/b\.conf:1: .*being read already") as caught:
        pairs("include a.conf", a="include b.conf", b="include a.conf")
    assert caught.value.hint == "remove this line"


def test_a_file_that_includes_itself_under_other_names_is_stopped():
    depth = []

    def read(path: str) -> str:
        depth.append(path)
        return "include ./again.conf"

    with pytest.raises(ConfigError, match=f"more than {MAX_INCLUDES} files deep"):
        list(assignments("include ./again.conf", "/etc/oci.conf", read))
    assert len(depth) == MAX_INCLUDES


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("include gone.conf", "include gone.conf: /etc/gone.conf: no such file or directory"),
        ("include a b", "include takes one file name"),
        ("include  ", "include takes one file name"),
    ],
)
def test_an_include_that_cannot_be_read_is_an_error_at_its_line(line, sentence):
    error = refused(f"{RUN}{line}\n")
    assert str(error).startswith(f"/etc/oci.conf:4: {sentence}")


def test_an_error_in_an_included_file_names_that_file():
    error = refused("\ninclude more.conf", lambda path: RUN + "Nonsense=1")
    assert (error.path, error.line) == ("/etc/more.conf", 4)


# -- the keys


def test_every_key_has_one_row_and_one_attribute_with_the_same_default():
    defaults = {f.name: f.default for f in fields(OciConf) if f.name not in {"source", "warnings"}}
    assert {key.attribute: key.default for key in KEYS.values()} == defaults
    assert MISSING not in defaults.values()
    assert all(key.attribute.replace("_", "") == name.lower() for name, key in KEYS.items())


def test_what_only_scrun_reads_is_listed_as_such():
    assert {name for name, key in KEYS.items() if key.scrun_only} == {
        "DebugFlags", "FileDebug", "SrunArgs", "SrunPath", "StdIODebug", "SyslogDebug",
    }  # fmt: skip
    assert {name for name, key in KEYS.items() if key.since == "21.08"} == {
        "ContainerPath", "CreateEnvFile", *COMMANDS,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "attribute", "value"),
    [
        ("ContainerPath=/run/%u/%j.%s.%t", "container_path", "/run/%u/%j.%s.%t"),
        ("MountSpoolDir=/spool", "mount_spool_dir", "/spool"),
        ("DisableHooks=prestart,poststop", "disable_hooks", ("prestart", "poststop")),
        ('DisableHooks="prestart, poststop,"', "disable_hooks", ("prestart", "poststop")),
        ("DebugFlags=Steps", "debug_flags", "Steps"),
        ("FileDebug=Debug2", "file_debug", "debug2"),
        ("StdIODebug=3", "stdio_debug", "3"),
        ("SyslogDebug=quiet", "syslog_debug", "quiet"),
        ("SrunPath=/opt/bin/srun", "srun_path", "/opt/bin/srun"),
        ("SrunArgs=--mpi=none\nsrunargs=-v", "srun_args", ("--mpi=none", "-v")),
        ("runtimequery=q", "runtime_query", "q"),
        *[(f"DisableCleanup={yes}", "disable_cleanup", True) for yes in ("yes", "UP", "True", "1")],
        *[
            (f"DisableCleanup={no}", "disable_cleanup", False)
            for no in ("No", "down", "false", "0")
        ],
        ("IgnoreFileConfigJson=yes", "ignore_file_config_json", True),
        *[
            (f"CreateEnvFile={value}", "create_env_file", EnvFile.NULL)
            for value in ("null", "NULL", "true", "y", "yes", "1", "up")
        ],
        ("CreateEnvFile=NewLine", "create_env_file", EnvFile.NEWLINE),
        *[
            (f"CreateEnvFile={value}", "create_env_file", EnvFile.DISABLED)
            for value in ("false", "disabled", "n", "no", "0", "down")
        ],
    ],
)
def test_a_key_sets_its_attribute(line, attribute, value):
    assert getattr(complete(line), attribute) == value


def test_what_is_not_set_has_its_default():
    assert complete("") == OciConf(
        source="/etc/oci.conf", runtime_run="r", runtime_kill="k", runtime_delete="d"
    )


def test_the_environment_file_ends_each_variable_as_asked():
    assert [kind.separator for kind in EnvFile] == ["", "\0", "\n"]


def test_an_expression_is_searched_in_name_and_value():
    found = complete(r"EnvExclude=^(SLURM_CONF|[[:lower:]]+)=" + "\nRunTimeEnvExclude=a\\\\.b")
    assert found.env_exclude is not None
    assert found.runtime_env_exclude is not None
    assert found.env_exclude.search("SLURM_CONF=/etc")
    assert not found.env_exclude.search("MY_SLURM_CONF=/etc")
    assert found.runtime_env_exclude.search("X=a.b")
    assert not found.runtime_env_exclude.search("X=a-b")


@pytest.mark.parametrize(
    ("line", "sentence", "hint"),
    [
        ("Nonsense=1", "unknown key Nonsense", "RunTimeRun"),
        ("OCIContainerPath=/x", "unknown key OCIContainerPath", "ContainerPath"),
        ("DisableCleanup=perhaps", "DisableCleanup is neither yes nor no: perhaps", "=yes"),
        ("CreateEnvFile=json", "CreateEnvFile cannot be json", "CreateEnvFile=newline"),
        ("FileDebug=loud", "FileDebug is not a log level: loud", "debug5"),
        ("FileDebug=10", "FileDebug is not a log level: 10", "from 0 to 9"),
        ("EnvExclude=(", "EnvExclude: not a regular expression", r"written \\"),
        ("EnvExclude=(?i)a", "EnvExclude: (? does not start anything", "POSIX extended"),
        ("ContainerPath=/x/%q", "ContainerPath: unknown pattern %q", "%b"),
        ("ContainerPath=x", "ContainerPath: x is not an absolute path", "start it with /"),
        ("RunTimeQuery=a%", "RunTimeQuery: the pattern ends in a lone %", "%%"),
        ("RunTimeQuery=''%b'", "RunTimeQuery: the pattern ends inside single", "close the quote"),
        ('EnvExclude=""', "EnvExclude is empty", "remove the line"),
        ('RunTimeQuery=""', "RunTimeQuery is empty", "remove the line"),
    ],
)
def test_a_value_that_is_refused_says_where_and_what_to_type(line, sentence, hint):
    error = refused(f"{RUN}\n{line}\n")
    assert str(error).startswith(f"/etc/oci.conf:5: {sentence}")
    assert hint in error.hint


def test_a_later_value_does_not_hide_an_earlier_mistake():
    assert refused(f"RunTimeRun=%q\n{RUN}").line == 1


def test_the_last_of_two_values_counts_and_both_places_are_named():
    found = parse(RUN + "include more.conf\n", "/etc/oci.conf", lambda path: 'runtimerun="other"')
    assert found.runtime_run == "other"
    assert found.warnings == (
        "/etc/more.conf:1: RunTimeRun is set again, and this line counts; remove /etc/oci.conf:1",
    )


# -- which commands go together


def without(text: str, *keys: str) -> str:
    return "".join(line + "\n" for line in text.splitlines() if line.split("=")[0] not in keys)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        (RUN, "run"),
        (RUN + "RunTimeQuery=q\n", "run"),
        (CREATE, "create"),
        ("IgnoreFileConfigJson=yes\nRunTimeRun=r\n", "run"),
        ("IgnoreFileConfigJson=yes\n" + RUN, "run"),
    ],
)
def test_a_set_of_commands_that_slurm_accepts(text, mode):
    found = parse(text, "oci.conf", no_file)
    assert found.mode == mode
    assert found.has_commands


@pytest.mark.parametrize(
    "text", ["IgnoreFileConfigJson=yes", "IgnoreFileConfigJson=1\nRunTimeKill=k"]
)
def test_without_a_bundle_no_command_is_required(text):
    found = parse(text, "oci.conf", no_file)
    assert found.runtime_run is None
    assert not found.has_commands


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        ("", "oci.conf: no command starts a container", 'add RunTimeRun="crun run '),
        ("CreateEnvFile=yes", "no command starts a container", "add RunTimeRun="),
        (without(RUN, "RunTimeRun"), "no command starts a container", "add RunTimeRun="),
        (without(RUN, "RunTimeKill"), ": RunTimeKill not set", "RunTimeKill="),
        (without(RUN, "RunTimeDelete"), ": RunTimeDelete not set", "RunTimeDelete="),
        (
            without(RUN, "RunTimeDelete", "RunTimeKill"),
            ": RunTimeKill and RunTimeDelete not set",
            'RunTimeKill="crun kill --all %n.%u.%j.%s.%t" and RunTimeDelete=',
        ),
        *[
            (without(CREATE, key), f"oci.conf: {key} not set", f"{key}=")
            for key in ("RunTimeQuery", "RunTimeCreate", "RunTimeStart", "RunTimeKill")
        ],
        (RUN + CREATE, ":4: RunTimeCreate and RunTimeRun (/etc/oci.conf:1) exclude", "keep"),
        (RUN + "RunTimeStart=s", ":4: RunTimeStart and RunTimeRun", "keep RunTimeRun"),
        ("IgnoreFileConfigJson=1\n" + RUN + CREATE, "exclude each other", "keep RunTimeRun"),
        ("IgnoreFileConfigJson=1\n" + CREATE, ":2: RunTimeCreate needs the bundle", "RunTimeRun"),
        ("IgnoreFileConfigJson=no", "no command starts a container", "add RunTimeRun="),
    ],
)
def test_a_set_of_commands_that_is_refused(text, sentence, hint):
    error = refused(text)
    assert sentence in str(error)
    assert hint in error.hint


def test_the_command_lines_in_hints_are_themselves_accepted():
    run = {name: COMMANDS[name] for name in ("RunTimeRun", "RunTimeKill", "RunTimeDelete")}
    create = {name: COMMANDS[name] for name in COMMANDS if name != "RunTimeRun"}
    for mode, lines in (("run", run), ("create", create)):
        text = "\n".join(written(name, line) for name, line in lines.items())
        assert parse(text, "oci.conf", no_file).mode == mode


# -- the samples of Slurm's Containers Guide, as they are printed there


@pytest.mark.parametrize(
    ("sample", "program", "mode"),
    [
        ("runc-create", "runc", "create"),
        ("runc-run", "runc", "run"),
        ("crun-create", "crun", "create"),
        ("crun-run", "crun", "run"),
        ("nvidia-create", "nvidia-container-runtime", "create"),
        ("nvidia-run", "nvidia-container-runtime", "run"),
        ("singularity", "sudo singularity oci", "create"),
    ],
)
def test_a_sample_of_the_guide_is_accepted(sample, program, mode):
    text = (GUIDE / f"{sample}.conf").read_text(encoding="utf-8")
    found = parse(text, f"{sample}.conf", no_file)
    commands = [getattr(found, KEYS[name].attribute) for name in COMMANDS]
    assert found.mode == mode
    assert len([line for line in commands if line]) == len(text.splitlines())
    assert all(line.startswith(program + " ") for line in commands if line)
    assert all("%n.%u.%j.%s.%t" in line for line in commands if line)
    assert bool(found.warnings) == (sample == "singularity")


def test_the_singularity_sample_is_accepted_with_the_fix_for_every_slip():
    text = (GUIDE / "singularity.conf").read_text(encoding="utf-8")
    found = parse(text, "oci.conf", no_file)
    assert found.runtime_delete == "sudo singularity oci delete %n.%u.%j.%s.%t"
    assert found.warnings == (
        "oci.conf:1: OCIRunTimeQuery is taken for RunTimeQuery; write RunTimeQuery=",
        "oci.conf:2: OCIRunTimeCreate is taken for RunTimeCreate; write RunTimeCreate=",
        "oci.conf:3: OCIRunTimeStart is taken for RunTimeStart; write RunTimeStart=",
        "oci.conf:4: OCIRunTimeKill is taken for RunTimeKill; write RunTimeKill=",
        "oci.conf:5: OCIRunTimeDelete is taken for RunTimeDelete; write RunTimeDelete=",
        "oci.conf:5: RunTimeDelete: the double quote is never closed; "
        'write RunTimeDelete="sudo singularity oci delete %n.%u.%j.%s.%t"',
    )
