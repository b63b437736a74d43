"""%-patterns: every letter, and that no value gets out of the place it is put in."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import fields, replace
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from roadstead.errors import ConfigError
from roadstead.oci.patterns import (
    BATCH_STEP,
    INTERACTIVE_STEP,
    LETTERS,
    Substitutions,
    check,
    expand,
    quoted,
)

PLAIN = Substitutions(
    arguments=("python3", "-c", "print(1)"),
    bundle="/home/ann/app",
    environment_file="/run/spool/environment",
    job_id=12,
    spool_dir="/run/spool",
    node_name="node1",
    rootfs="/home/ann/app/rootfs",
    step_id=3,
    task_id=4,
    user="ann",
    uid=1001,
    work_dir="/scratch/run 7",
)
NASTY = [
    "",
    " ",
    "a b",
    "it's",
    "'",
    "''",
    "'; touch /tmp/out; '",
    '"',
    '"; touch /tmp/out; "',
    "$(touch /tmp/out)",
    "`touch /tmp/out`",
    "${HOME}",
    "$HOME",
    "$",
    "\\",
    "\\\\",
    "a\\",
    "\\'",
    '\\"',
    "a\nb",
    "\n",
    "#x",
    "~",
    "*",
    "{a,b}",
    "a,b",
    "a;b|c&d>e<f(g)",
    "A=b",
    "%s",
    "%%",
    "!!",
    "é\udcff",
    "if",
    "-n",
]
SHELLS = [shell for shell in ("/bin/sh", shutil.which("bash")) if shell]
PRINT = r"printf '%%s\0' "


def words(shell_text: str, shell: str = "/bin/sh") -> list[str]:
    """The words that a shell makes of ``printf '%s\\0' …``."""
    ran = subprocess.run(
        [shell, "-c", shell_text.encode("utf-8", "surrogateescape")],
        stdout=subprocess.PIPE,
        check=True,
        env={"HOME": "/home/of-the-site", "x": "X", "LC_ALL": "C"},
    )
    return ran.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]


def refused(pattern: str, key: str = "RunTimeKill") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check(pattern, key, "oci.conf", 7)
    assert str(caught.value).startswith(f"oci.conf:7: {key}: ")
    assert caught.value.hint
    return caught.value


# -- the letters


@pytest.mark.parametrize(
    ("pattern", "expanded"),
    [
        ("", ""),
        ("crun list", "crun list"),
        ("100%%", "100%"),
        ("%%j", "%j"),
        ("%%%j", "%12"),
        ("%@", "python3 -c 'print(1)'"),
        ("%b", "/home/ann/app"),
        ("%e", "/run/spool/environment"),
        ("%j", "12"),
        ("%m", "/run/spool"),
        ("%n", "node1"),
        ("%p", "4711"),
        ("%r", "/home/ann/app/rootfs"),
        ("%s", "3"),
        ("%t", "4"),
        ("%u", "ann"),
        ("%U", "1001"),
        ("%Z", "'/scratch/run 7'"),
        ("/tmp/%j", "/tmp/12"),
        ("crun state %n.%u.%j.%s.%t", "crun state node1.ann.12.3.4"),
        ("c --root=$HOME/x -b %r | tee y", "c --root=$HOME/x -b /home/ann/app/rootfs | tee y"),
        ("a $(id -u) ${USER} $x", "a $(id -u) ${USER} $x"),
    ],
)  # fmt: skip
def test_a_pattern_of_plain_values_stays_readable(pattern, expanded):
    check(pattern, "RunTimeKill", "oci.conf", 1)
    assert expand(pattern, replace(PLAIN, pid=4711)) == expanded


def test_every_letter_has_a_value_and_every_value_a_letter():
    assert sorted(name for name, _ in LETTERS.values()) == sorted(f.name for f in fields(PLAIN))


@pytest.mark.parametrize(
    ("step", "number"), [(BATCH_STEP, "4294967291"), (INTERACTIVE_STEP, "4294967290")]
)
def test_a_step_is_a_number_even_where_it_has_a_name(step, number):  # fmt: skip
    assert expand("%s", replace(PLAIN, step_id=step)) == number


def test_no_arguments_leave_nothing_behind():
    assert expand("x %@ y", replace(PLAIN, arguments=())) == "x  y"


@pytest.mark.parametrize(
    "key", ["RunTimeRun", "RunTimeCreate", "RunTimeStart", "MountSpoolDir", "ContainerPath"]
)
def test_the_pid_is_refused_where_there_is_none_yet(key):  # fmt: skip
    assert "%p is known only once" in str(refused("/x/%p", key))


@pytest.mark.parametrize("key", ["RunTimeQuery", "RunTimeKill", "RunTimeDelete"])
def test_the_pid_may_be_used_where_there_is_one(key):
    check("kill %p", key)
    assert expand("kill %p", replace(PLAIN, pid=1), key=key) == "kill 1"
    with pytest.raises(ConfigError, match=f"^{key}: %p is known only once") as caught:
        expand("kill %p", PLAIN, key=key)
    assert "RunTimeQuery, RunTimeKill and RunTimeDelete" in caught.value.hint


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [("crun %q %b", "unknown pattern %q"), ("a%", "ends in a lone %"), ("% j", "pattern % ")],
)
@pytest.mark.parametrize("key", ["RunTimeRun", "RunTimeDelete"])
def test_an_unknown_letter_is_named_with_its_key_and_the_known_ones(pattern, sentence, key):
    error = refused(pattern, key)
    assert sentence in str(error)
    assert "%% %@ %b %e %j %m %n %p %r %s %t %u %U %Z" in error.hint
    with pytest.raises(ConfigError, match=sentence):
        expand(pattern, PLAIN)


# -- quoting, judged by real shells

PLACES = {
    "%b": "{}",
    "'%b'": "{}",
    '"%b"': "{}",
    "--bundle=%b": "--bundle={}",
    "x'y%b'z": "xy{}z",
    "'%b'%b": "{0}{0}",
    "\"x%b\"'%b'": "x{0}{0}",
    "\\'%b\\'": "'{}'",
    "'\\%b'": "\\{}",
    "\\\\%b": "\\{}",
    '"\\\\%b\\""': '\\{}"',
    "$x%b": "X{}",
    '"$x%b$x"': "X{}X",
    "${x}%b": "X{}",
    "${none:-%j}%b": "12{}",
    '"${none:-%j}%b"': "12{}",
    "%%%b%%": "%{}%",
    "a#%b": "a#{}",
    "~%%%b": "~%{}",
    "{%b}": "{{{}}}",
}


def test_a_nasty_value_is_exactly_itself_in_every_place():
    filled = [replace(PLAIN, bundle=value) for value in NASTY]
    lines = []
    for place in PLACES:
        check(PRINT + place, "RunTimeRun")
        lines += [expand(PRINT + place, values) for values in filled]
    cases = list(product(PLACES, NASTY))
    for shell in SHELLS:
        seen = words("\n".join(lines), shell)
        for (place, value), word in zip(cases, seen, strict=False):
            assert word == PLACES[place].format(value), f"{place} in {shell}"
        assert len(seen) == len(cases)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_nasty_value_stays_itself_in_a_command_substitution(shell):
    pattern = r"""y=$(printf '%%s.' %b); printf '%%s\0' "${y%%.}" """
    text = "; ".join(expand(pattern, replace(PLAIN, bundle=value)) for value in NASTY)
    assert words(text, shell) == NASTY


@pytest.mark.parametrize("shell", SHELLS)
def test_arguments_are_words_of_their_own(shell):
    assert words(expand(PRINT + "%@", replace(PLAIN, arguments=tuple(NASTY))), shell) == NASTY


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("place", ["'%@'", '"%@"'])
def test_arguments_in_quotes_are_one_word_that_an_inner_shell_reads_back(shell, place):
    values = replace(PLAIN, arguments=tuple(NASTY))
    pattern = f"{shell} -c {place}"
    assert words(expand(pattern, replace(values, arguments=("printf", r"%s\0", *NASTY)))) == NASTY
    assert words(expand(PRINT + place, values), shell) == [expand("%@", values)]


@pytest.mark.parametrize("shell", SHELLS)
def test_an_argument_is_never_syntax(shell):
    reserved = ["if", "A=b", "time", "!", "{", "case"]
    pattern = "%@ || echo %@ $?"
    text = "\n".join(expand(pattern, replace(PLAIN, arguments=(word,))) for word in reserved)
    ran = subprocess.run(
        [shell, "-c", text], capture_output=True, check=True, env={"PATH": "/none"}, text=True
    )
    assert ran.stdout.splitlines() == [f"{word} 127" for word in reserved]


def test_a_name_does_not_become_a_variable():
    text = expand("%u=1 2>&- || echo $?", replace(PLAIN, user="HOME"))
    ran = subprocess.run(["/bin/sh", "-c", text], capture_output=True, check=True, env={})
    assert ran.stdout == b"127\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_number_does_not_choose_the_file_descriptor_of_a_redirection(shell):
    values = replace(PLAIN, job_id=2, arguments=("1", "2"))
    assert words(expand(PRINT + "a%j>&1", values), shell) == ["a2"]
    assert words(expand(PRINT + "%j>&1", values), shell) == ["2"]
    assert words(expand(PRINT + "%j</dev/null", values), shell) == ["2"]
    assert words(expand(PRINT + "%@>&1", values), shell) == ["1", "2"]
    assert expand("%j >log", values) == "2 >log"


@given(
    st.lists(
        st.text("'\"$`\\\n #~*;&|()<>{}!=%,ab-", max_size=12)
        | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=25, deadline=None)
@example(NASTY)
def test_any_value_is_exactly_itself_bare_and_in_both_quotes(values):
    pattern = PRINT + """%b '%b' "%b" x%b'%b'"%b"$x%b"$x%b" %@"""
    text = "; ".join(
        expand(pattern, replace(PLAIN, bundle=value, arguments=(value,))) for value in values
    )
    expected = [[v, v, v, f"x{v}{v}{v}X{v}X{v}", v] for v in values]
    assert words(text) == [word for group in expected for word in group]


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
@settings(max_examples=60, deadline=None)
def test_quoting_leaves_a_word_readable_or_puts_it_in_single_quotes(value):
    word = quoted(value)
    assert (word == value and value.isascii()) or (word[0], word[-1]) == ("'", "'")
    assert word.replace(r"'\''", "").count("'") in (0, 2)


# -- where quoting cannot hold


@pytest.mark.parametrize(
    "opaque",
    [
        "`crun list %{}`",
        "a $((%{} + 1))",
        "a $[%{} + 1]",
        "((%{}))",
        "${{x:-%{}}}",
        "${{x:-$(echo %{})}}",
        "${{x:-'%{}'}}",
        "$'%{}'",
        '"$(echo %{})"',
        '"`echo %{}`"',
        "cat <<%{}",
        "crun # %{}",
        "# %{}",
        "crun;# %{}",
        "%@#%{}",
        "crun `list` 'it %{}'",
        '"${{x:-"y"}}" %{}',
    ],
)
def test_a_value_that_could_not_be_quoted_is_refused_and_a_number_is_not(opaque):
    for letter, (attribute, _) in LETTERS.items():
        pattern = opaque.format(letter)
        if letter in "jstUp":
            check(pattern, "RunTimeKill")
            values = replace(PLAIN, pid=4711, arguments=())
            number = str(getattr(values, attribute))
            assert expand(pattern, values) == pattern.replace("%@", "").replace(
                f"%{letter}", number
            )
        else:
            assert f"%{letter} stands where it cannot be quoted" in str(refused(pattern))


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("a \\%b", "%b right after \\ cannot be quoted"),
        ('a "\\%b"', "%b right after \\ cannot be quoted"),
        ("a $%b", "%b right after $ cannot be quoted"),
        ('a "$%j"', "%j right after $ cannot be quoted"),
        ("a \\%q", "unknown pattern %q"),
        ("crun '%b", "the pattern ends inside single quotes"),
        ('crun "%b', "the pattern ends inside double quotes"),
        ("a\nb", "a command is one line"),
    ],
)
def test_a_pattern_that_would_undo_the_quoting_is_refused(pattern, sentence):
    assert sentence in str(refused(pattern))
    with pytest.raises(ConfigError):
        expand(pattern, PLAIN)


@pytest.mark.parametrize(
    "pattern",
    [
        "a \\%%",
        "a $%%",
        "a '\\%%'",
        "a \\\\ $$ $? ${#x} a#b %b",
        "a ${XDG_RUNTIME_DIR:-/run/%U} %b",
    ],
)
def test_a_pattern_that_only_looks_like_one_of_those_is_accepted(pattern):
    check(pattern, "RunTimeRun")


# -- paths


@pytest.mark.parametrize(
    ("pattern", "expanded"),
    [
        ("/run/%u/oci-job%j-%s/task-%t", "/run/ann/oci-job12-3/task-4"),
        ("%m/%n.%U%%", "/run/spool/node1.1001%"),
        ("%Z/a b", "/scratch/run 7/a b"),
        ("%r/'x'", "/home/ann/app/rootfs/'x'"),
        ("%b/.spool", "/home/ann/app/.spool"),
    ],
)
@pytest.mark.parametrize("key", ["ContainerPath", "MountSpoolDir"])
def test_a_path_is_filled_without_quotes(key, pattern, expanded):
    check(pattern, key)
    assert expand(pattern, PLAIN, quote=False, key=key) == expanded


@pytest.mark.parametrize("value", ["..", ".", "", "a/b", "../../etc", "/etc", "..."])
@pytest.mark.parametrize("attribute", ["user", "node_name"])
def test_a_name_cannot_lead_out_of_the_directory(attribute, value):
    pattern = "/spool/%u" if attribute == "user" else "/spool/.%n"
    with pytest.raises(ConfigError, match=r"^ContainerPath: %. is .* cannot be part") as caught:
        expand(pattern, replace(PLAIN, **{attribute: value}), quote=False, key="ContainerPath")
    assert "%U" in caught.value.hint


@pytest.mark.parametrize(
    ("pattern", "key", "sentence"),
    [
        ("spool/%j", "ContainerPath", "spool/%j is not an absolute path"),
        ("%j/spool", "MountSpoolDir", "%j/spool is not an absolute path"),
        ("%%b/spool", "MountSpoolDir", "%%b/spool is not an absolute path"),
        ("", "MountSpoolDir", " is not an absolute path"),
        ("/spool/%@", "MountSpoolDir", "%@ is a command line, not a path"),
        ("/spool/%e", "ContainerPath", "%e is a file in the directory that ContainerPath names"),
        ("/spool/%q", "ContainerPath", "unknown pattern %q"),
        ("/spool/%", "ContainerPath", "ends in a lone %"),
    ],
)
def test_a_path_that_is_refused(pattern, key, sentence):
    assert sentence in str(refused(pattern, key))


def test_a_command_line_is_refused_in_a_path_at_any_time():
    with pytest.raises(ConfigError, match="%@ is a command line, not a path"):
        expand("/x/%@", PLAIN, quote=False)
