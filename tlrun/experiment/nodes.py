"""One command on several machines (`trainer.nodes`): node 0 runs it, the others follow.

Imports torch only where there are several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tlrun.config.build import plain
from tlrun.config.saved import load_config
from tlrun.config.saved_code import composed
from tlrun.errors import ConfigError, RecordedFault, RunError, TlrunError
from tlrun.experiment.node import Node, this_node
from tlrun.messages import say
from tlrun.run_folder.run_dir import RunDir, is_run_dir, runs_in

if TYPE_CHECKING:
    from tlrun.experiment.node_group import Follower, Leader

Config = Mapping[str, Any]
Result = TypeVar("Result")

_leader: Leader | None = None  # of this process, which may give several commands
_follower: Follower | None = None


def on_nodes(
    configs: Sequence[Config],
    command: Callable[[], Result],
    followed: Callable[[int, list[Path]], Result],
) -> Result:
    """Run a command where this is node 0 or the only one, else train along with node 0.

    configs: of the command's runs; those of a follower's processes may name what these name.
    followed: what a node returns that followed, from node 0's exit code and the run folders.
    Raises what the command raises; ConfigError, or RunError where a node does not come.
    """
    nodes = nodes_of(configs)
    if nodes == 1:
        return command()
    node = this_node(nodes)
    if node.rank > 0:
        return followed(*follow(node, configs))
    with leading(node) as codes:
        result = command()
        codes.append(result if isinstance(result, int) else 0)
    return result


def code_of_node_0(code: int, folders: Sequence[Path]) -> int:
    """All that a command of the terminal needs of it."""
    return code


def summary_of_node_0(code: int, folders: Sequence[Path]) -> dict[str, Any]:
    """Of the run that the nodes have trained. Raises RunError where there is none."""
    if code or not folders:
        raise RunError(f"node 0 ended with exit code {code}; what it said is in its run.log")
    return {**RunDir(folders[0]).read_summary(), "run_dir": str(folders[0])}


def nodes_of(configs: Iterable[Config]) -> int:
    """How many machines a command is for. A dry run trains nothing, and is for one."""
    counts = [config["trainer"]["nodes"] for config in configs if not config["dry_run"]]
    return max((count for count in counts if isinstance(count, int)), default=1)


@contextmanager
def leading(node: Node) -> Iterator[list[int]]:
    """Node 0's part: within it the other nodes train along, after it they know the exit code.

    Yields a list for that, 0 if it stays empty.
    """
    global _leader
    from tlrun.experiment.node_group import Leader

    say(f"tlrun: {node.name}: waiting for the others at {node.host}:{node.port}")
    code: list[int] = []
    if _leader is None or _leader.node != node:
        _leader = Leader(node)
    try:
        _leader.begin()
        yield code
    except BaseException as error:
        code.append(exit_code_of(error))
        raise
    finally:
        _leader.end(code[-1] if code else 0)


def leader_of(nodes: int) -> Leader | None:
    """Through which a run starts its processes on the other nodes; None for one node."""
    if nodes == 1:
        return None
    if _leader is None or _leader.node.nodes != nodes:
        raise ConfigError(f"trainer.nodes={nodes} is for the commands tlrun and tlrun resume")
    return _leader


def follow(node: Node, configs: Sequence[Config]) -> tuple[int, list[Path]]:
    """Any other node's part: the exit code of node 0, and the run folders that were trained in."""
    global _follower
    from tlrun.engine.interrupt import StopRequest
    from tlrun.experiment.node_group import End, Follower
    from tlrun.experiment.node_store import node_0_answers
    from tlrun.experiment.processes import follow_launch

    say(f"tlrun: {node.name}: follows node 0 at {node.host}:{node.port}")
    if _follower is None or _follower.node != node:
        _follower = Follower(node)
    follower, folders = _follower, list[Path]()
    follower.begin()
    with StopRequest() as stop, _trusting(configs):
        for event in follower.events(lambda: follower.leave_if_asked(stop.exit_code)):
            if isinstance(event, End):
                if event.code:
                    say(f"tlrun: {node.name}: node 0 ended with exit code {event.code}")
                return event.code, folders
            say(f"tlrun: {node.name}: trains in {event.run_dir}")
            folders.append(Path(event.run_dir))
            with node_0_answers(node):
                follow_launch(event, follower, stop)
    raise AssertionError  # the events end with an End


@contextmanager
def _trusting(configs: Sequence[Config]) -> Iterator[None]:
    """What this command composes may be named by the configurations that its processes read."""
    with ExitStack() as stack:
        for config in configs:
            stack.enter_context(composed(config))
        yield


def exit_code_of(error: BaseException) -> int:
    """What the process will end with."""
    if isinstance(error, RecordedFault):
        error = error.error
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    default = 130 if isinstance(error, KeyboardInterrupt) else 1
    return int(getattr(error, "exit_code", default))


def saved_configs(path: Path, overrides: Sequence[str] = ()) -> list[Config]:
    """Of a run folder, or of the jobs of a sweep, with overrides on top; those that can be read."""
    configs = []
    for folder in [path] if is_run_dir(path) else runs_in(path):
        with suppress(TlrunError, OSError):  # whoever runs it says what is wrong
            configs.append(plain(load_config(folder / "config.yaml", overrides)))
    return configs
