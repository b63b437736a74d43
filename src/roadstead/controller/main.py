"""The controller's loop: connections, supervisors and timers in; journal, replies and launches out.

Whatever happens becomes an event for ``core.reactor``; what that records is done when the turn of
the loop is over: one commit for everything to be saved, then the rest.  Nothing is decided here.

Looking for a supervisor that an earlier controller started: its exit record, if it has ended; its
socket, if it lives; its process, if it is between the two; else it was killed, and what it left is
swept away.  Only a step that has no directory on a machine that has not been restarted was never
begun (see spawner.py).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from roadstead import __version__
from roadstead.controller import configuration, facts
from roadstead.controller.children import Children
from roadstead.controller.holdings import Holdings
from roadstead.controller.journal import Journal
from roadstead.controller.peers import Client, Conversation, Peer
from roadstead.core import effects as do
from roadstead.core import events as on
from roadstead.core import messages, stepspec
from roadstead.core.effects import Effect, Effects
from roadstead.core.lifecycle import StepKey
from roadstead.core.model import ExitRecord, compact_json, from_json
from roadstead.core.reactor import react
from roadstead.core.state import State
from roadstead.errors import EngineError, RoadsteadError
from roadstead.host import paths, post, process, wire
from roadstead.host.loop import Loop, Timer
from roadstead.step import audit, named, record, sweep

_STREAMS: Final = 3
_ACCEPTED: Final = ("submitted", "pending", "granted")  # what says that there is a new job
_AUDIT_SECONDS: Final = 1.0  # after the start, when whoever started us has been served
_OUT_OF_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)

# Jobs that have ended are kept for sacct: about 1 KB each with a step.
_KEPT_JOBS: Final = 100_000
_PURGED_AT_ONCE: Final = 1000  # some 20 ms
_PURGE_PAUSE: Final = 1.0
_PURGE_INTERVAL: Final = 3600.0

log = logging.getLogger(__name__)


class Controller:
    """The controller at work.  ``run`` returns when it is to end, True if another is to follow."""

    def __init__(
        self,
        state: State,
        journal: Journal,
        spawner: wire.Connection,
        *,
        same_boot: bool,
        idle_seconds: float,
    ) -> None:
        self.state = state
        self.loop = Loop(after_turn=self._after_turn)
        self._children = Children(self.loop, self._leave_listener)
        self._plugstack = configuration.plugstack(os.environ)
        self._journal = journal
        self._spawner = spawner
        self._same_boot = same_boot
        self._idle_seconds = idle_seconds
        self._idle_timer: Timer | None = None
        self._effects = Effects()
        self._clients: dict[int, Client | Conversation] = {}
        self._next_client = 1
        self._supervisors: dict[StepKey, Peer] = {}
        self._timers: dict[on.TimerName, Timer] = {}
        self._socket = paths.socket_path(state.settings.runtime)
        self._listener: wire.Listener | None = None
        self._paused = False
        self._restart = False
        self._holdings = Holdings(paths.state_directory(os.environ))

    def restore(self) -> None:
        """Take over what the journal holds."""
        contents = self._journal.load()
        log.info("restored jobs=%d steps=%d", len(contents.jobs), len(contents.steps))
        self._holdings.restore(contents.jobs, contents.steps)
        # The journal does not say it: the records do, which were made before the things.
        had = set(map(int, named.jobs(paths.state_directory(os.environ))))
        jobs = contents.jobs
        if had:
            jobs = tuple([replace(job, named=True) if job.id in had else job for job in jobs])
        self._react(
            on.Restored(
                at=time.time(),
                jobs=jobs,
                steps=contents.steps,
                # Of a journal that was moved away there may be steps: no number is used twice.
                next_job_id=max(
                    contents.next_job_id, 1 + record.highest_job(self.state.settings.runtime)
                ),
                next_step_ids=contents.next_step_ids,
                conditions=contents.conditions,
                partitions=contents.partitions,
                kept=contents.kept,
            )
        )
        self._after_turn()
        self._forget_journaled()
        self._purge()

    def _purge(self) -> None:
        """Keep the history from growing for ever: now and then, a part of what is too much."""
        more = self._journal.purge(_KEPT_JOBS, _PURGED_AT_ONCE)
        self.loop.call_later(_PURGE_PAUSE if more else _PURGE_INTERVAL, self._purge)

    def _forget_journaled(self) -> None:
        """Delete exit records that the last controller had committed, and not deleted yet."""
        steps = f"{self.state.settings.runtime}/steps"
        wanted = {record.exit_path(stepspec.directory(self.state, k)) for k in self.state.steps}
        for name in os.listdir(steps):
            path = f"{steps}/{name}"
            if name.endswith(".exit") and path not in wanted:
                os.unlink(path)

    def _live(self) -> list[str]:
        """The directories of all steps that have not ended, and of jobs with named containers."""
        state = paths.state_directory(os.environ)
        jobs = [named.directory(state, job.id) for job in self.state.jobs.values() if job.named]
        return [stepspec.directory(self.state, key) for key in self.state.steps] + jobs

    def _audit(self) -> None:
        """Remove what the steps of earlier controllers have left, in a process of its own.

        It knows what lives from now, and looks later: so what it judges is what is here now.
        """
        state, runtime = paths.state_directory(os.environ), self.state.settings.runtime
        here, live = {*os.listdir(f"{runtime}/steps"), *named.jobs(state)}, self._live()
        me = os.getpid()

        def body() -> None:
            for line in audit.clean(state, runtime, here=here, live=live, controller=me):
                log.warning("left behind %s", line)

        self._children.run(body, lambda: None)

    def listen(self, fd: int = -1) -> None:
        """Be there for clients; ``fd`` is the socket at which they wait already."""
        if fd < 0:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._socket)  # of a controller that was killed; the lock is ours
        self._listener = wire.Listener(self._socket, fd)
        self.loop.watch(self._listener, self._accept)

    def _leave_listener(self) -> None:
        """In a child of ours, which may outlive us: clients are to see that nobody listens."""
        if self._listener is not None:
            self._listener.close(unlink=False)

    def run(self) -> int | None:
        """Serve until the end; the socket on which the next controller, which this process is to
        become, goes on listening, None for no such one."""
        self.loop.watch(self._spawner, self._restart_in_place)
        self._watch_idleness()
        self.loop.call_later(_AUDIT_SECONDS, self._audit)
        if self._plugstack:
            begun = partial(configuration.tell_plugins, self._plugstack, "slurmd_init")
            self._children.run(begun, lambda: None, tries=1)
        self.loop.run()
        if self._plugstack and not self._restart:
            configuration.tell_plugins(self._plugstack, "slurmd_exit")
        if self._listener is not None:
            if self._restart:  # nobody is to find that there is none, and start another
                return self._listener.detach()
            self._listener.close()
        return None

    def quit(self) -> None:
        """End; supervisors go on, and the next controller finds them."""
        self.loop.stop()

    def _restart_in_place(self) -> None:
        """Without a spawner nothing can be launched: make way for a controller that has one."""
        log.error("spawner gone, restarting")
        self._restart = True
        self.loop.stop()

    # -- events in, effects out -----------------------------------------------------------------

    def _react(self, event: on.Event) -> None:
        react(self.state, self._effects, event)

    def _after_turn(self) -> None:
        while recorded := self._effects.take():
            try:
                self._journal.commit(recorded)
            except EngineError as error:
                self._refuse(recorded, error)
                raise
            self._holdings.note(recorded)
            for effect in recorded:
                self._perform(effect)
        self._watch_idleness()

    def _refuse(self, recorded: list[Effect], error: EngineError) -> None:
        """Tell those whose job could not be written down; the others ask the next controller."""
        told = {"event": "error", "kind": error.kind, "sentence": str(error), "hint": error.hint}
        for effect in recorded:
            number = effect.client if isinstance(effect, do.Launch) else None
            if isinstance(effect, do.Reply) and effect.message["event"] in _ACCEPTED:
                number = effect.client
            if number is not None and (client := self._clients.get(number)) is not None:
                client.send(told)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case do.Reply():
                if (client := self._clients.get(effect.client)) is not None:
                    client.send(effect.message)
            case do.Launch():
                self._launch(effect)
            case do.Signal():
                self._tell(
                    effect.step, "signal", signal=effect.signal, batch_only=effect.batch_only
                )
            case do.Notify():
                self._tell(effect.step, "notify", sentence=effect.sentence)
            case do.Terminate():
                words = {"reason": effect.reason, "signal": effect.signal}
                tell = partial(self._tell, effect.step, "terminate", **words)
                asker = None if effect.asker is None else self._clients.get(effect.asker)
                asker.once_ended(tell) if isinstance(asker, Client) else tell()
            case do.Suspend():
                self._tell(effect.step, "suspend")
            case do.Resume():
                self._tell(effect.step, "resume")
            case do.Limit():
                self._tell(effect.step, "limit", deadline=effect.deadline)
            case do.Resize():
                self._tell(effect.step, "resize", rows=effect.rows, columns=effect.columns)
            case do.ClearNamed():
                self._clear_named(effect.job_id)
            case do.SetTimer():
                self._set_timer(effect)
            case do.CancelTimer():
                if (timer := self._timers.pop(effect.timer, None)) is not None:
                    timer.cancel()
            case do.Close():
                self._close(effect.client)
            case do.Forget():
                self._forget(effect.directory)
            case do.Adopt():
                self._adopt(effect.step)
            case do.WatchOwner():
                self._watch_owner(effect)
            case do.Mail():
                self._post(effect)
            case do.Quit():
                self.quit()
            case (
                do.Save()
                | do.SaveStep()
                | do.SavePayload()
                | do.DropPayload()
                | do.SaveNode()
                | do.SavePartition()
            ):
                pass  # committed

    @staticmethod
    def _forget(directory: str) -> None:
        try:
            record.forget(directory)
        except OSError as error:  # the next controller's audit tries again
            log.warning("not removed directory=%r error=%r", directory, error.strerror)

    def _clear_named(self, job_id: int) -> None:
        """In a process of its own: a container may have many files."""
        state = paths.state_directory(os.environ)

        def cleared() -> None:
            self._react(on.Cleared(at=time.time(), job_id=job_id))

        self._children.run(partial(named.remove, state, job_id), cleared)

    def _set_timer(self, effect: do.SetTimer) -> None:
        def due() -> None:
            del self._timers[effect.timer]
            self._react(on.Due(at=time.time(), timer=effect.timer))

        if (old := self._timers.pop(effect.timer, None)) is not None:
            old.cancel()
        left = max(0.0, effect.at - time.time())
        self._timers[effect.timer] = self.loop.call_later(left, due)

    def _post(self, letter: do.Mail) -> None:
        """Hand a letter over to who carries letters, and do not wait for it."""
        try:
            child = post.hand_over(letter.program, letter.to, letter.subject)
        except OSError as error:
            log.warning(
                "no letter to=%r program=%r error=%r", letter.to, letter.program, str(error)
            )
            return

        def ended() -> None:
            self.loop.unwatch(child)
            status = child.reap()
            if status:
                log.warning("letter not taken to=%r status=%d", letter.to, status)

        self.loop.watch(child, ended)

    # -- clients --------------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection = self._listener.accept()
        except OSError as error:
            if error.errno in _OUT_OF_DESCRIPTORS:
                log.error("accept failed error=%r", error.strerror)
                self.loop.unwatch(self._listener)
                self._paused = True  # until a client goes
            return
        if connection is None:
            return
        number = self._next_client
        self._next_client += 1
        self._clients[number] = Client(number, self.loop, connection, self._hear, self._gone)

    def _hear(self, client: Client, body: dict[str, Any], fds: wire.FdSet) -> None:
        if not client.greeted and body.get("v") != wire.VERSION:
            fds.close()
            client.send(_other_version(body.get("v")))
            return
        client.greeted = True
        tag = body.get("tag")
        if type(tag) is not int:
            self._heed(client, body, fds)
            return
        conversation = client.conversations.get(tag)
        if conversation is None:
            conversation = Conversation(self._next_client, client, tag, self._over)
            self._clients[self._next_client] = conversation
            self._next_client += 1
        self._heed(conversation, body, fds)

    def _over(self, conversation: Conversation) -> None:
        """A conversation has had its last answer."""
        del self._clients[conversation.number]

    def _heed(self, client: Client | Conversation, body: dict[str, Any], fds: wire.FdSet) -> None:
        if body.get("op") == "ping":
            fds.close()
            client.send({"event": "pong", "version": __version__, "pid": os.getpid()})
            return
        if body.get("op") == "reconfigure":
            fds.close()
            self._reconfigure(client)
            return
        if body.get("op") == "live":
            fds.close()
            client.send({"event": "live", "pid": os.getpid(), "steps": self._live()})
            return
        if body.get("op") == "run":
            if len(fds) not in (_STREAMS, _STREAMS + 1) or client.fds:
                fds.close()
                error = EngineError("malformed request: descriptors")
                self._effects.error(client.number, error)
                return
            client.fds = fds.take_all()
        fds.close()
        if self._effects.end_a_job:
            self._after_turn()  # what ended in this very turn is in the journal before it is asked
        now = time.time()
        try:
            messages.check(body)
            known = facts.gather(self.state, self._journal, body, client.pid, now)
            if body.get("op") != "rehearse":  # nothing will run
                self._holdings.take(body)
        except RoadsteadError as error:
            self._effects.error(client.number, error)
            return
        self._react(on.Message(at=now, client=client.number, body=body, facts=known))

    def _reconfigure(self, client: Client | Conversation) -> None:
        """Read roadstead.conf again, by making way for a controller that does: what runs goes on.

        A file that cannot be used changes nothing.
        """
        try:
            conf = configuration.load(os.environ)
        except RoadsteadError as error:
            self._effects.error(client.number, error)
            return
        self._journal.forget_partitions()  # the file says again what there is
        client.send({"event": "done", "warnings": list(conf.warnings)})
        log.info("reconfigured source=%r", conf.site.source)
        self._restart = True
        self.loop.stop()

    def _gone(self, client: Client) -> None:
        self._clients.pop(client.number, None)
        client.close_fds()
        for each in list(client.conversations.values()):
            each.close()
            self._react(on.ClientGone(at=time.time(), client=each.number))
        if self._paused and self._listener is not None:
            self._paused = False
            self.loop.watch(self._listener, self._accept)
        self._react(on.ClientGone(at=time.time(), client=client.number))

    def _close(self, number: int) -> None:
        client = self._clients.pop(number, None)
        if client is not None:
            client.close_fds()
            client.close()

    # -- supervisors ----------------------------------------------------------------------------

    def _launch(self, effect: do.Launch) -> None:
        spec = compact_json(effect.spec)
        if effect.payload is not None:
            env, spec["script"] = self._journal.payload(effect.payload)
            spec["env"] = {**env, **effect.spec.env}
        client = None if effect.client is None else self._clients.get(effect.client)
        streams = () if client is None else client.take_fds()
        ours, theirs = wire.pair()
        try:
            self._spawner.send({"op": "launch", "step": spec}, (theirs.fileno(), *streams))
        except (BrokenPipeError, ConnectionResetError):
            self._restart_in_place()
        finally:
            theirs.close()
            for fd in streams:
                os.close(fd)
        self._converse((effect.spec.job_id, effect.spec.step_id), ours)

    def _converse(self, key: StepKey, connection: wire.Connection) -> Peer:
        def gone() -> None:
            if self._supervisors.get(key) is peer:  # else another run of the step has begun
                self._supervisor_gone(key)

        peer = Peer(self.loop, connection, partial(self._hear_supervisor, key), gone)
        self._supervisors[key] = peer
        return peer

    def _tell(self, key: StepKey, op: str, **fields: object) -> None:
        if (supervisor := self._supervisors.get(key)) is not None:
            supervisor.send({"op": op, **fields})

    def _hear_supervisor(self, key: StepKey, message: dict[str, Any], fds: wire.FdSet) -> None:
        fds.close()
        try:
            self._heed_supervisor(key, message)
        except (KeyError, TypeError):  # whoever that is, it is no supervisor of ours
            log.warning("supervisor not understood step=%d.%d", *key)

    def _heed_supervisor(self, key: StepKey, message: dict[str, Any]) -> None:
        now = time.time()
        match message.get("event"):
            case "started":
                self._react(on.Started(at=now, step=key, pid=message["pid"]))
            case "adopted":
                self._react(on.Started(at=now, step=key, pid=message["pid"], adopted=True))
            case "notice":
                self._react(on.Noticed(step=key, sentence=message["sentence"]))
            case "exit":
                ended = from_json(ExitRecord, message["record"])
                self._react(on.Exited(at=now, step=key, record=ended))
            case what:
                log.warning("supervisor says step=%d.%d event=%r", *key, what)

    def _supervisor_gone(self, key: StepKey) -> None:
        del self._supervisors[key]
        if key in self.state.steps and not self._restart:
            self._find(key)

    def _adopt(self, key: StepKey) -> None:
        if self._find_exit(key):
            return
        directory = stepspec.directory(self.state, key)
        try:
            connection = wire.connect(f"{directory}/{record.SOCKET}")
        except OSError:
            self._find(key, adopting=True)
            return
        self._converse(key, connection).send({"op": "adopt"})

    def _find(self, key: StepKey, *, adopting: bool = False) -> None:
        """What became of a step whose supervisor does not answer."""
        if self._find_exit(key):
            return
        directory = stepspec.directory(self.state, key)
        claim = record.read_claim(directory)
        if claim is not None and record.is_running(claim) and self._await(claim["pid"], key):
            return
        if self._find_exit(key):  # it may have ended just now
            return
        begun = not adopting or not self._same_boot or os.path.isdir(directory)
        self._sweep(key, directory, begun=begun)

    def _sweep(self, key: StepKey, directory: str, *, begun: bool) -> None:
        """Remove what a killed supervisor left."""

        def swept() -> None:
            self._react(on.Vanished(at=time.time(), step=key, begun=begun))

        log.warning("supervisor gone step=%d.%d begun=%s", *key, begun)
        if begun:
            self._swept(directory, swept)
        else:
            swept()

    def _swept(self, directory: str, then: Callable[[], None]) -> None:
        """Sweep a directory, in a process of its own: runtimes may hang.

        The directory itself stays until the step's end is committed: if we were killed before that,
        a step without one would seem never to have begun.
        """
        self._children.run(partial(sweep.sweep, directory, keep=True), then)

    def _find_exit(self, key: StepKey) -> bool:
        directory = stepspec.directory(self.state, key)
        ended = record.read_exit(directory)
        if ended is None:
            return False

        def exited() -> None:
            self._react(on.Exited(at=time.time(), step=key, record=ended))

        if os.path.isdir(directory):  # it was killed at its last work, or is at it
            self._swept(directory, exited)
        else:
            exited()
        return True

    def _await(self, pid: int, key: StepKey) -> bool:
        """Look again when the process has ended; False if it has already."""
        return self._children.when_ended(pid, partial(self._find, key))

    def _watch_owner(self, effect: do.WatchOwner) -> None:
        """The process of the same pid is another one if it has another start time, which is counted
        from the machine's start: the clock may have been set.  Journals of version 1 have none."""

        def gone() -> None:
            self._react(on.OwnerGone(at=time.time(), job_id=effect.job_id))

        is_there = bool(effect.start) and record.start_time(effect.pid) == effect.start
        if not is_there or not self._children.when_ended(effect.pid, gone):
            gone()

    # -- the end --------------------------------------------------------------------------------

    def _watch_idleness(self) -> None:
        idle = not self._clients and not self.state.jobs
        if not idle and self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        elif idle and self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self._idle_seconds, self._go_if_idle)

    def _go_if_idle(self) -> None:
        """End, unless somebody has connected meanwhile: nobody can once the name is gone."""
        self._idle_timer = None
        assert self._listener is not None
        os.unlink(self._socket)
        if not process.becomes_readable(self._listener, 0):
            self.loop.unwatch(self._listener)
            self._listener.close(unlink=False)
            self._listener = None
            log.info("idle, ending")
            self.quit()
            return
        while process.becomes_readable(self._listener, 0):
            self._accept()
        self.loop.unwatch(self._listener)
        self._listener.close(unlink=False)
        self.listen()


def _other_version(version: object) -> dict[str, Any]:
    error = EngineError(
        f"the controller speaks protocol {wire.VERSION}, this command {version}",
        hint="roadstead engine stop, or wait until its jobs have ended",
    )
    return {
        "event": "error",
        "kind": error.kind,
        "sentence": str(error),
        "hint": error.hint,
        "version": __version__,
    }
