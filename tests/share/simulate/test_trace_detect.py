import gzip
from pathlib import Path

import pytest

from tandem.core import plug
from tandem.core.errors import TraceError, UnknownPluginError
from tandem.share.simulate.trace_detect import detect, load_reader, read_trace

SAMPLES = {
    "philly": "timestamp,duration,num_gpus,gpu_time,cluster\n2017-10-09 07:01:55,66.0,1,66.0,x\n",
    "openb": "cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,creation_time,deletion_time\n1,1,0,0,,LS,0,9\n",
    "swf": "; MaxProcs: 4\n1 0 5 9 1 -1 -1 1 -1 -1 1 1 1 1 -1 -1 -1 -1\n",
    "sacct": "JobID|Submit|ElapsedRaw|ReqCPUS\n1|2024-03-01T10:00:00|5|1\n",
}


def test_every_reader_has_a_sample_here() -> None:
    assert set(SAMPLES) == set(plug.names("share.traces"))


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("packed", [False, True])
def test_formats_are_told_apart_by_their_beginning_whatever_the_name(tmp_path: Path, name: str, packed: bool) -> None:
    path = tmp_path / "history"
    content = SAMPLES[name].encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    (tmp_path / "nodes.csv").write_text("sn,cpu_milli,memory_mib,gpu,model\nn0,32000,262144,0,\n")
    assert detect(path) == name
    work = read_trace(path)
    assert len(work.arrivals) == 1
    assert work.nodes
    assert work.name == "history"


def test_swf_without_comments(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(SAMPLES["swf"].split("\n", 1)[1])
    assert detect(path) == "swf"


@pytest.mark.parametrize("name", SAMPLES)
def test_readers_expose_what_is_asked_of_them(name: str) -> None:
    reader = load_reader(name)
    assert reader.EXTENSIONS
    assert all(extension.startswith(".") for extension in reader.EXTENSIONS)


def test_an_unknown_format_shows_the_first_line_and_the_formats(tmp_path: Path) -> None:
    path = tmp_path / "what.csv"
    path.write_text("when,who\n")
    with pytest.raises(
        TraceError, match=r"begins with 'when,who', which no format would read.*openb, philly, sacct, swf"
    ):
        detect(path)


@pytest.mark.parametrize(("content", "words"), [(None, "cannot read"), (b"", "is empty"), (b"\n", "begins with ''")])
def test_missing_empty_and_blank_files(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "history"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TraceError, match=words):
        read_trace(path)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("damage", ["cut", "rotten"])
def test_damaged_gzip_is_said_not_crashed_on(tmp_path: Path, name: str, damage: str) -> None:
    packed = gzip.compress(SAMPLES[name].encode())
    path = tmp_path / "history"
    path.write_bytes(packed[:-9] if damage == "cut" else packed[:12] + b"\xff" * 40)
    (tmp_path / "nodes.csv").write_text("sn,cpu_milli,memory_mib,gpu,model\nn0,32000,262144,0,\n")
    with pytest.raises(TraceError, match="damaged"):
        read_trace(path, name)


def test_binary_files_are_no_history(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(TraceError, match="no format"):
        detect(path)
    for name in SAMPLES:
        with pytest.raises(TraceError):
            read_trace(path, name)


def test_a_folder_is_no_history(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot read"):
        read_trace(tmp_path)


def test_options_as_text(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text(SAMPLES["philly"])
    assert len(read_trace(path, options={"nodes": "7", "gpus": 2}).nodes) == 7
    with pytest.raises(TraceError, match=r"option 'node' for the format philly; .*did you mean 'nodes'\?"):
        read_trace(path, options={"node": "7"})
    with pytest.raises(TraceError, match="nodes='many'; allowed: a whole number"):
        read_trace(path, options={"nodes": "many"})


@pytest.mark.parametrize("value", ["0", "00", "-1"])
@pytest.mark.parametrize("key", ["nodes", "cores"])
def test_a_machine_without_nodes_or_cores_is_not_taken_for_one_to_infer(tmp_path: Path, key: str, value: str) -> None:
    for name, todo in (("swf", "leave it out"), ("sacct", "leave it out"), ("philly", "for example")):
        path = tmp_path / name
        path.write_text(SAMPLES[name])
        with pytest.raises(TraceError, match=f"{key}='{value}'; allowed: a whole number of at least 1; {todo}"):
            read_trace(path, options={key: value})


def test_a_format_by_name(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text(SAMPLES["philly"])
    with pytest.raises(TraceError, match="no column 'JobID'"):
        read_trace(path, "sacct")
    with pytest.raises(UnknownPluginError, match="did you mean 'philly'"):
        read_trace(path, "filly")
