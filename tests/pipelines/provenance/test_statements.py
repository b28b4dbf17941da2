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
from talking_portrait.pipelines.files.video import VideoWriter, open_video, write_part
from talking_portrait.pipelines.packages import VERSION
from talking_portrait.pipelines.provenance import content_credentials
from talking_portrait.pipelines.provenance.marking import SWITCH
from talking_portrait.pipelines.provenance.metadata import SOURCE_TYPE, Statement, comment_of, read_statement

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
        assert "holds no video that can be read" in str(error)  # noqa: PT017


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


def test_a_part_of_a_video_says_what_the_whole_says(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.mp4")
    write_part(open_video(whole), tmp_path / "part.mp4", 0.04, 0.0, crf=8)
    said = read_statement(whole)
    assert said is not None
    assert read_statement(tmp_path / "part.mp4") == said
    strange = comment_of(Statement(SOURCE_TYPE, "a\0b\nc", "", "x" * 10_000))
    assert len(strange) == 1000
    assert "abc" in strange


def test_a_file_that_ai_did_not_make_says_nothing(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", (64, 64), Fraction(25)) as video:
        video.write(clip().numpy())
    assert read_statement(tmp_path / "clip.mp4") is None
    assert b"AI" not in (tmp_path / "clip.mp4").read_bytes()[-300:]
    (tmp_path / "text.mp4").write_text("AI-generated")
    with pytest.raises(TalkingPortraitError, match=r"text.mp4 holds no video that can be read \(.*\); give an MP4"):
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


def test_a_key_and_a_certificate_that_do_not_serve_are_named(tmp_path: Path) -> None:
    pytest.importorskip("c2pa", reason="needs requirements-c2pa.txt")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, chain = certificates(tmp_path)
    source, target = written(tmp_path / "a.mp4"), tmp_path / "c.mp4"
    days = {"expired": (-40, -10), "early": (10, 40)}
    dated = {name: certificates(tmp_path / name, *given) for name, given in days.items()}
    parts = [part + b"-----END CERTIFICATE-----\n" for part in chain.read_bytes().split(b"-----END CERTIFICATE-----\n")]
    (tmp_path / "turned.pem").write_bytes(parts[1] + parts[0])
    (tmp_path / "words.pem").write_text("hello")
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    (tmp_path / "locked.pem").write_bytes(private.private_bytes(*form, serialization.BestAvailableEncryption(b"x")))
    (tmp_path / "older.pem").write_bytes(private.private_bytes(*form, serialization.NoEncryption()))
    other = ec.generate_private_key(ec.SECP256K1()).private_bytes(*form, serialization.NoEncryption())
    (tmp_path / "curve.pem").write_bytes(other)

    def refusal(key: Path, chain: Path) -> str:
        with pytest.raises(TalkingPortraitError) as caught:
            content_credentials.sign(source, target, key=key, certificate=chain)
        return str(caught.value)

    not_its_key = "is not that of the first certificate in"
    assert f"The key key.pem {not_its_key} turned.pem; give the key" in refusal(key, tmp_path / "turned.pem")
    assert f"The key key.pem {not_its_key} chain.pem; give the key" in refusal(dated["early"][0], chain)
    for name, (own, own_chain) in dated.items():
        assert re.search(r"chain.pem is valid from \d+-\d\d-\d\d to \d+-\d\d-\d\d only", refusal(own, own_chain)), name
    assert "chain.pem can't be used as a private key (it holds none in PEM); give" in refusal(chain, chain)
    assert "words.pem can't be used as a private key (it holds none in PEM)" in refusal(tmp_path / "words.pem", chain)
    assert "locked.pem can't be used as a private key (it has a password)" in refusal(tmp_path / "locked.pem", chain)
    assert "curve.pem is of a kind that C2PA does not take; give" in refusal(tmp_path / "curve.pem", chain)
    assert "words.pem holds no certificate that can be read; give" in refusal(key, tmp_path / "words.pem")
    (tmp_path / "cut.mp4").write_bytes(source.read_bytes()[:-9])
    with pytest.raises(TalkingPortraitError, match=r"cut.mp4 can't be signed \(.*\); give a whole video, and a cert"):
        content_credentials.sign(tmp_path / "cut.mp4", target, key=key, certificate=chain)
    assert not target.exists()
    content_credentials.sign(source, target, key=tmp_path / "older.pem", certificate=chain)
    found = content_credentials.read_credentials(target)
    assert found is not None
    assert found.state == "Valid"


def certificates(folder: Path, first: int = -1, last: int = 30) -> tuple[Path, Path]:
    """A private key, and its certificate with that of the authority that signed it, as PEM files.

    They are valid from `first` to `last`, in days from now.
    """
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
            .not_valid_before(now + timedelta(days=first))
            .not_valid_after(now + timedelta(days=last))
            .add_extension(x509.BasicConstraints(authority, None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False)
            .add_extension(usage, True)
        )
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        return builder.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    folder.mkdir(exist_ok=True)
    key, chain = folder / "key.pem", folder / "chain.pem"
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key.write_bytes(own.private_bytes(*private))
    chain.write_bytes(certificate(own, "Signer", False) + certificate(root, "Root", True))
    return key, chain


def test_the_version_is_that_of_the_package() -> None:
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
