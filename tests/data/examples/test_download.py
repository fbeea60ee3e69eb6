"""Missing sets, downloads from a local server, safe archives."""

import hashlib
import http.server
import threading

import numpy as np
import pytest
import torch

from tlrun.data.examples import download
from tlrun.data.examples.download import Remote, cached_images, fetch, find, locked
from tlrun.errors import DataError

BODY = b"some bytes " * 1000
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture
def server():
    """A mirror: /good, /bad (other bytes), /silent (no answer while the test lasts)."""
    hits, over = [], threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            if self.path == "/silent":
                over.wait()
                return
            body = BODY if self.path == "/good" else b"not it"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", hits
    over.set()
    httpd.shutdown()
    httpd.server_close()


def remote(*urls, md5=MD5):
    return Remote(("Toy/file.bin", "file.bin"), md5, urls)


def test_download_is_verified_and_kept(no_data, server):
    url, hits = server
    path = fetch("Toy", remote(f"{url}/good"))
    assert path == no_data / "data" / "Toy" / "file.bin"
    assert path.read_bytes() == BODY
    fetch("Toy", remote(f"{url}/good"))
    assert hits == ["/good"]


def test_a_wrong_checksum_leaves_nothing_and_the_next_mirror_is_tried(no_data, server):
    url, hits = server
    assert fetch("Toy", remote(f"{url}/bad", f"{url}/good")).read_bytes() == BODY
    assert hits == ["/bad", "/good"]
    with pytest.raises(DataError, match="checksum"):
        fetch("Toy", Remote(("Toy/other.bin",), MD5, (f"{url}/bad",)))
    assert [p.name for p in (no_data / "data" / "Toy").glob("other*")] == ["other.bin.lock"]


def test_a_broken_download_starts_again(no_data, server):
    part = no_data / "data" / "Toy" / "file.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half of an older attempt" * 10_000)
    assert fetch("Toy", remote(f"{server[0]}/good")).read_bytes() == BODY
    assert not part.exists()


def test_a_silent_mirror_is_given_up(no_data, server, monkeypatch):
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.2)
    with pytest.raises(DataError, match="no answer within"):  # waiting would never end
        fetch("Toy", remote(f"{server[0]}/silent"))


def test_two_processes_fetch_once(no_data, server):
    url, hits = server
    threads = [
        threading.Thread(target=fetch, args=("Toy", remote(f"{url}/good"))) for _ in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert hits == ["/good"]


def test_the_message_for_a_set_that_is_nowhere(no_data):
    with pytest.raises(DataError) as caught:
        fetch("Toy", remote(), download=False)
    message = str(caught.value)
    for word in ("Toy/file.bin", str(no_data), "TLRUN_DATA", "tlrun data=digits_digitsm"):
        assert word in message
    assert "\n" not in message


def test_every_set_ends_in_one_message_without_network(no_data, monkeypatch):
    from tlrun.data.sets import features, mnist, mnistm, svhn, usps

    def refuse(url):
        raise OSError("no network")

    monkeypatch.setattr(download, "_open_url", refuse)
    for make in (
        mnist.mnist,
        mnistm.mnistm,
        mnistm.mnistm_generated,
        usps.usps,
        svhn.svhn,
        features.office_caltech_surf,
    ):
        with pytest.raises(DataError, match=r"not on this machine.*tlrun data=digits_digitsm"):
            make()


def test_tlrun_data_comes_first(no_data, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    (mine / "Toy").mkdir(parents=True)
    (mine / "Toy" / "file.bin").write_bytes(b"mine")
    monkeypatch.setenv("TLRUN_DATA", str(mine))
    assert fetch("Toy", remote("http://localhost:1/none")).read_bytes() == b"mine"
    assert find("Toy/*.bin") == mine / "Toy" / "file.bin"


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="set TLRUN_CACHE"), locked(download.cache_root() / "x"):
        pass


def test_cached_images_are_built_once_and_mapped(no_data):
    calls = []

    def build():
        calls.append(1)
        return np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2)

    first = cached_images("toy", ("v1", 2), build)
    second = cached_images("toy", ("v1", 2), build)
    assert calls == [1]
    assert torch.equal(first, second)
    first[0] = 9  # copy-on-write: the file stays
    assert cached_images("toy", ("v1", 2), build)[0].max() == 3
    cached_images("toy", ("v2", 2), build)
    assert calls == [1, 1]
    for path in (no_data / "decoded").glob("*.npy"):
        path.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"damaged.*remove it"):
        cached_images("toy", ("v1", 2), build)


def test_a_mistyped_data_folder_is_named(tmp_path, monkeypatch):
    remote = Remote(("x/there.gz",), MD5)
    for folder, said in ((tmp_path / "nope", True), (tmp_path, False)):
        monkeypatch.setenv("TLRUN_DATA", str(folder))
        with pytest.raises(DataError) as error:
            fetch("set", remote)
        assert (f"(TLRUN_DATA={folder} is no folder)" in str(error.value)) == said
