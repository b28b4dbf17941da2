"""What a video file says of how it was made: metadata, the switch that turns the mark off, content credentials."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from talking_portrait.__main__ import main
from talking_portrait.nodes.output.detect_mark import DetectMark
from talking_portrait.nodes.renderer_node import streamed_video, video_of
from talking_portrait.nodes.standalone import node_api
from talking_portrait.nodes.standalone.core_nodes import CreateVideo, LoadVideo, SaveVideo, VideoPayload
from talking_portrait.pipelines.errors import TalkingPortraitError
from talking_portrait.pipelines.files.frame_stream import write_stream
from talking_portrait.pipelines.files.video import VideoWriter, open_video
from talking_portrait.pipelines.packages import VERSION
from talking_portrait.pipelines.provenance import content_credentials
from talking_portrait.pipelines.provenance.marking import SWITCH
from talking_portrait.pipelines.provenance.metadata import SOURCE_TYPE, read_statement

from .test_mark import moving

ROOT = Path(__file__).parents[3]
PAGE = b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.fixture(autouse=True)
def _no_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)


def clip() -> torch.Tensor:
    return torch.from_numpy(moving(3, 64))


def written(path: Path, *, mark: bool = True) -> Path:
    write_stream(path, [clip()], Fraction(25), crf=1, mark=mark)
    return path


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
def test_a_video_says_that_ai_made_it_when_and_by_what(tmp_path: Path, ending: str) -> None:
    said = read_statement(written(tmp_path / f"a{ending}"))
    assert said is not None
    assert (said.source_type, said.tool) == (SOURCE_TYPE, f"Talking Portrait {VERSION}")
    made = datetime.strptime(said.time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert abs(datetime.now(timezone.utc) - made) < timedelta(hours=1)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", said.id)
    assert said.invisible_mark == "yes"
    other = read_statement(written(tmp_path / f"b{ending}"))
    assert other is not None
    assert other.id != said.id


def test_xmp_is_the_last_box_of_a_file_that_plays(tmp_path: Path) -> None:
    content = written(tmp_path / "a.mp4").read_bytes()
    place, kinds = 0, []
    while place < len(content):
        kinds.append(content[place + 4 : place + 8])
        last = content[place : place + int.from_bytes(content[place : place + 4], "big")]
        place += len(last)
    assert place == len(content)
    assert kinds[-1] == b"uuid"
    assert b'DigitalSourceType="' + PAGE in last
    assert len(list(open_video(tmp_path / "a.mp4").frames())) == 3


def test_the_statement_outlives_the_loss_of_one_of_its_two_places(tmp_path: Path) -> None:
    content = written(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "xmp.mp4").write_bytes(content.replace(b"AI-generated video (" + PAGE, b"x" * (20 + len(PAGE))))
    start = content.rindex(b"uuid") - 4
    (tmp_path / "comment.mp4").write_bytes(content[:start])
    for name in ("xmp.mp4", "comment.mp4"):
        said = read_statement(tmp_path / name)
        assert said is not None
        assert (said.source_type, said.tool) == (SOURCE_TYPE, f"Talking Portrait {VERSION}")
        assert said.invisible_mark == "yes"


@pytest.mark.parametrize(
    "rest", [b"", b"\0\0\0", b"\0\0\0\0uuid", b"\0\0\0\x01uuid", b"\xff\xff\xff\xffuuid", b"\0\0\0\2free"]
)
def test_damaged_boxes_after_the_video_are_passed_over_or_refused_in_a_sentence(tmp_path: Path, rest: bytes) -> None:
    with VideoWriter(tmp_path / "a.mp4", (64, 64), Fraction(25)) as video:
        video.write(clip().numpy())
    with (tmp_path / "a.mp4").open("ab") as file:
        file.write(rest)
    try:
        assert read_statement(tmp_path / "a.mp4") is None
    except TalkingPortraitError as error:
        assert "is no video that can be read" in str(error)  # noqa: PT017


def test_the_switches_turn_the_mark_off_and_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = clip().numpy().astype(float)

    def change(path: Path) -> float:
        return float(np.abs(np.stack(list(open_video(path).frames())) - frames).mean())

    on = written(tmp_path / "on.mp4")
    off = written(tmp_path / "off.mp4", mark=False)
    monkeypatch.setenv(SWITCH, "off")
    by_environment = written(tmp_path / "env.mp4")
    assert change(off) < change(on) - 0.3
    for path in (off, by_environment):
        said = read_statement(path)
        assert said is not None
        assert (said.source_type, said.invisible_mark) == (SOURCE_TYPE, "turned off")
        assert abs(change(path) - change(off)) < 0.05
    monkeypatch.setenv(SWITCH, "perhaps")
    with pytest.raises(TalkingPortraitError, match=f"{SWITCH} is 'perhaps', but on or off is expected"):
        written(tmp_path / "none.mp4")
    assert not (tmp_path / "none.mp4").exists()


def test_a_file_that_ai_did_not_make_says_nothing(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", (64, 64), Fraction(25)) as video:
        video.write(clip().numpy())
    assert read_statement(tmp_path / "clip.mp4") is None
    assert b"AI" not in (tmp_path / "clip.mp4").read_bytes()[-300:]
    (tmp_path / "text.mp4").write_text("AI-generated")
    with pytest.raises(TalkingPortraitError, match=r"text.mp4 is no video that can be read \(.*\); give an MP4"):
        read_statement(tmp_path / "text.mp4")


def test_videos_of_nodes_are_marked_and_loaded_ones_are_saved_as_they_are(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "real.mp4", (64, 64), Fraction(25)) as video:
        video.write(clip().numpy())
    session = node_api.Session(input_folder=tmp_path, output_folder=tmp_path / "out")
    images = clip().float() / 255
    with node_api.use_session(session):
        videos: dict[str, VideoPayload] = {
            "streamed": streamed_video([images], Fraction(25), None),
            "memory": video_of(images, Fraction(25), None),
            "created": CreateVideo.execute(images, 25.0).args[0],
            "loaded": LoadVideo.execute("real.mp4").args[0],
        }
        for name, video in videos.items():
            SaveVideo.execute(video, name, "auto", "auto")
    videos["memory"].save_to(tmp_path / "for_another_node.mp4")
    assert read_statement(tmp_path / "for_another_node.mp4") is None, "only what is saved is marked"
    for name in videos:
        said = read_statement(tmp_path / "out" / f"{name}_00001_.mp4")
        assert (said is not None) == (name != "loaded"), name


def test_the_command_and_the_node_say_what_they_find(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "talk.mp4"
    write_stream(path, [torch.from_numpy(moving(4, 192))], Fraction(25))
    assert main(["detect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "invisible mark: found in 1 of 1 parts (score " in printed
    assert "metadata: trainedAlgorithmicMedia, tool Talking Portrait" in printed
    assert main(["detect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["invisible_mark"]["found"] is True
    marked, report, _ = DetectMark.execute(VideoPayload(path=path)).args
    assert marked is True
    assert report.startswith("invisible mark: found")
    with VideoWriter(tmp_path / "real.mp4", (64, 64), Fraction(25)) as video:
        video.write(clip().numpy())
    assert main(["detect", str(tmp_path / "real.mp4")]) == 1
    assert "metadata: do not say that AI made it" in capsys.readouterr().out
    assert main(["detect", str(tmp_path / "nothing.mp4")]) == 2


def test_signing_without_the_package_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "c2pa", None)
    with pytest.raises(
        TalkingPortraitError, match="Content credentials need c2pa-python .* -m pip install c2pa-python"
    ):
        content_credentials.sign(tmp_path / "a.mp4", tmp_path / "b.mp4", key="k", certificate="c")
    assert content_credentials.read_credentials(written(tmp_path / "a.mp4")) is None


def test_signed_credentials_are_valid_by_c2pas_own_reader(tmp_path: Path) -> None:
    c2pa = pytest.importorskip("c2pa", reason="needs requirements-c2pa.txt")
    key, chain = certificates(tmp_path)
    source = written(tmp_path / "a.mp4")
    assert (
        main(["sign", str(source), "--key", str(key), "--certificate", str(chain), "--out", str(tmp_path / "b.mp4")])
        == 0
    )
    with c2pa.Reader(str(tmp_path / "b.mp4")) as reader:
        report = json.loads(reader.json())
    assert report["validation_state"] in ("Valid", "Trusted")
    assert {problem["code"] for problem in report.get("validation_status", [])} <= {"signingCredential.untrusted"}
    found = content_credentials.read_credentials(tmp_path / "b.mp4")
    assert found is not None
    assert (found.state, found.source_type, found.tool) == ("Valid", SOURCE_TYPE, f"Talking Portrait {VERSION}")
    said = read_statement(tmp_path / "b.mp4")
    assert said == read_statement(source)
    changed = bytearray((tmp_path / "b.mp4").read_bytes())
    changed[changed.rindex(b"mdat") + 300] ^= 255
    (tmp_path / "changed.mp4").write_bytes(changed)
    spoilt = content_credentials.read_credentials(tmp_path / "changed.mp4")
    assert spoilt is not None
    assert spoilt.state == "Invalid"
    with pytest.raises(
        TalkingPortraitError, match=r"a.mp4 can't be signed \(.*\); give a private key and its certificate"
    ):
        content_credentials.sign(source, tmp_path / "c.mp4", key=chain, certificate=chain)
    assert not (tmp_path / "c.mp4").exists()


def certificates(folder: Path) -> tuple[Path, Path]:
    """A private key, and its certificate with that of the authority that signed it, as PEM files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = datetime.now(timezone.utc)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)])

    def certificate(key: ec.EllipticCurvePrivateKey, text: str, authority: bool) -> bytes:
        usage = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
        builder = (
            x509.CertificateBuilder(name("Root"), name(text), key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(authority, None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False)
            .add_extension(usage, True)
        )
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        return builder.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    key, chain = folder / "key.pem", folder / "chain.pem"
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key.write_bytes(own.private_bytes(*private))
    chain.write_bytes(certificate(own, "Signer", False) + certificate(root, "Root", True))
    return key, chain


def test_the_version_is_that_of_the_package() -> None:
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
