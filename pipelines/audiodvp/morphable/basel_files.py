"""The Basel Face Model 2009 with its expression basis, from the files that a user has got, as one face model.

Its licence forbids to pass it on, so nothing of it is here but how the files belong together: the face model has 53490
vertices, of which the expressions cover 53215, and of these 35709 are the face without ears and neck. All numbers in
the files count from 1. Read by SciPy, which runs nothing that a file holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....models.audiodvp.face_model import MAX_ADJACENT, FaceModel, lower_triangles
from ...errors import TalkingPortraitError
from ...files.output_paths import file_to_write, keep_inputs, whole_file

BASEL, JUYONG, DEEP3D = (
    "https://faces.dmi.unibas.ch/bfm (after registration)",
    "https://github.com/Juyong/3DFace",
    "https://github.com/microsoft/Deep3DFaceReconstruction",
)
SHAPES, EXPRESSIONS_FILE, DEVIATIONS = "01_MorphableModel.mat", "Exp_Pca.bin", "std_exp.txt"
FRONT, EXPRESSION_VERTICES, MESH = "BFM_front_idx.mat", "BFM_exp_idx.mat", "facemodel_info.mat"
FILES = {
    SHAPES: BASEL,
    EXPRESSIONS_FILE: JUYONG,
    DEVIATIONS: JUYONG,
    FRONT: DEEP3D,
    EXPRESSION_VERTICES: DEEP3D,
    MESH: DEEP3D,
}
"""Each file with the page that it is from."""
READY = "data.mat"
"""The same, put together by the published program."""
UNIT = 92156.7
"""Lengths in the files that make one of the face model's (published)."""
VERTICES = 35709
IDENTITIES, EXPRESSIONS, TEXTURES = 80, 64, 80
"""Components that are kept, of 199, 79 and 199 (published)."""
LANDMARKS = (
    *(27440, 27208, 27608, 27816, 35472, 34766, 34312, 34022, 33838, 33654, 33375, 32939, 32244, 16264, 16467, 16888),
    *(16644, 31716, 31056, 30662, 30454, 30288, 29549, 29382, 29177, 28787, 28111, 8161, 8177, 8187, 8192, 9883, 9163),
    *(8204, 7243, 6515, 14066, 12383, 11353, 10455, 11492, 12653, 5828, 4920, 3886, 2215, 3640, 4801, 10795, 10395),
    *(8935, 8215, 7495, 6025, 5522, 6915, 7636, 8236, 8836, 9555, 10537, 9064, 8223, 7384, 5909, 7629, 8229, 8829),
)
"""Vertices of the 68 landmarks in the order of the detectors, for the mirrored face that the camera shows."""


def convert_face_model(source: str | Path, out: str | Path) -> FaceModel:
    """Makes one .safetensors of the published files in the folder `source`, or of a ready data.mat.

    Raises TalkingPortraitError for files that are missing (all of them, with their pages), cut short or of another
    model, and for an output that can't be written.
    """
    source, target = Path(source), file_to_write(out)
    ready = source if source.is_file() else source / READY
    keep_inputs(target, ready, *(source / name for name in FILES))
    model = _of_ready(ready) if ready.is_file() else _of_parts(source)
    with whole_file(target) as partial:
        model.save(partial)
    return model


def _of_parts(folder: Path) -> FaceModel:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        pages = "; ".join(
            f"{', '.join(name for name in missing if FILES[name] == page)} from {page}"
            for page in dict.fromkeys(FILES[name] for name in missing)
        )
        raise TalkingPortraitError(
            f"The folder {folder} lacks {len(missing)} of the {len(FILES)} files of the Basel Face Model 2009 with its "
            f"expressions; put them there: {pages}."
        )
    shapes = _mat(folder / SHAPES, ("shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV"))
    vertices = shapes["shapeMU"].size // 3
    front = _numbers(folder / FRONT, "idx")
    if len(front) != VERTICES:
        raise _unfit(folder / FRONT, f"its idx has {len(front)} numbers, not {VERTICES}")
    components, deviations = _expressions(folder / EXPRESSIONS_FILE), _deviations(folder / DEVIATIONS)
    if len(deviations) < EXPRESSIONS or len(components) < EXPRESSIONS:
        short = DEVIATIONS if len(deviations) < EXPRESSIONS else EXPRESSIONS_FILE
        raise _unfit(folder / short, f"it has fewer than {EXPRESSIONS} expressions")
    covered = _numbers(folder / EXPRESSION_VERTICES, "trimIndex", vertices)
    if components.shape[1] != len(covered):
        raise _unfit(
            folder / EXPRESSIONS_FILE,
            f"it is for {components.shape[1]} vertices, but {EXPRESSION_VERTICES} names {len(covered)}",
        )
    if front.max() >= len(covered):
        raise _unfit(folder / FRONT, f"it names vertex {front.max() + 1} of {len(covered)}")
    chosen = covered[front]

    def basis(kind: str, count: int, unit: float) -> np.ndarray:
        directions, deviation = shapes[f"{kind}PC"], shapes[f"{kind}EV"].ravel()
        if directions.shape[0] != 3 * vertices or min(directions.shape[1], deviation.size) < count:
            raise _unfit(folder / SHAPES, f"its {kind}PC is {directions.shape[0]} x {directions.shape[1]}")
        kept = directions[:, :count].reshape(vertices, 3, count)[chosen] * deviation[:count]
        return kept.reshape(-1, count) / unit

    def mean(kind: str, unit: float) -> np.ndarray:
        values = shapes[f"{kind}MU"].ravel()
        if values.size != 3 * vertices:
            raise _unfit(folder / SHAPES, f"its {kind}MU has {values.size} numbers, not {3 * vertices}")
        return values.reshape(vertices, 3)[chosen].reshape(-1, 1) / unit

    moved = components[:EXPRESSIONS, front].reshape(EXPRESSIONS, -1) * deviations[:EXPRESSIONS, None]
    triangles, around = _mesh(folder / MESH, _mat(folder / MESH, ("tri", "point_buf")), first=1)
    return _face_model(
        folder / SHAPES,
        geo_mean=mean("shape", UNIT),
        id_base=basis("shape", IDENTITIES, UNIT),
        exp_base=moved.T / UNIT,
        tex_mean=mean("tex", 255),
        tex_base=basis("tex", TEXTURES, 255),
        triangles=triangles,
        point_buf=around,
    )


def _of_ready(path: Path) -> FaceModel:
    bases = {"geo_mean": 1, "id_base": IDENTITIES, "exp_base": EXPRESSIONS, "tex_mean": 1, "tex_base": TEXTURES}
    data = _mat(path, (*bases, "triangles", "point_buf"))
    for name, count in bases.items():
        if data[name].size != 3 * VERTICES * count:
            shape = " x ".join(map(str, data[name].shape))
            raise _unfit(path, f"its {name} is {shape}, not {3 * VERTICES} x {count}")
    triangles, around = _mesh(path, {"tri": data["triangles"], "point_buf": data["point_buf"]}, first=0)
    arrays = {name: data[name].reshape(-1, count) for name, count in bases.items()}
    return _face_model(path, **arrays, triangles=triangles, point_buf=around)


def _face_model(path: Path, **arrays: np.ndarray) -> FaceModel:
    bases = {name: array for name, array in arrays.items() if name not in ("triangles", "point_buf")}
    for name, array in bases.items():
        if not np.isfinite(array).all():
            raise _unfit(path, f"its {name} holds values that are no finite numbers")
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array, np.float32)) for name, array in bases.items()}
    triangles = torch.from_numpy(arrays["triangles"].astype(np.int32))
    return FaceModel(
        geo_mean=tensors["geo_mean"],
        id_base=tensors["id_base"],
        exp_base=tensors["exp_base"],
        tex_mean=tensors["tex_mean"],
        tex_base=tensors["tex_base"],
        triangles=triangles,
        lower_triangles=lower_triangles(tensors["geo_mean"], triangles),
        point_buf=torch.from_numpy(arrays["point_buf"].astype(np.int64)),
        landmark_index=torch.tensor(LANDMARKS),
    )


def _mesh(path: Path, arrays: Mapping[str, np.ndarray], *, first: int) -> tuple[np.ndarray, np.ndarray]:
    """`triangles` (F, 3) and the triangles around each vertex (V, 8), filled up with F, both counted from 0."""
    triangles, around = (
        _whole(path, "tri", arrays["tri"]) - first,
        _whole(path, "point_buf", arrays["point_buf"]) - first,
    )
    if triangles.ndim != 2 or triangles.shape[1] != 3 or not 0 <= triangles.min() <= triangles.max() < VERTICES:
        raise _unfit(path, f"its triangles are not of a mesh of {VERTICES} vertices")
    if around.shape != (VERTICES, MAX_ADJACENT) or not 0 <= around.min() <= around.max() <= len(triangles):
        raise _unfit(path, "its point_buf does not belong to its triangles")
    return triangles, around


def _mat(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """These arrays of a MATLAB file."""
    from scipy.io import loadmat

    try:
        found: Mapping[str, Any] = loadmat(str(path), variable_names=list(names))
    except NotImplementedError:
        raise _unfit(path, "it is a MATLAB 7.3 file, as other models are") from None
    except Exception:  # its reader raises errors of a dozen kinds for damaged bytes
        raise _unfit(path, "it can't be read and may be cut short") from None
    lacking = [
        name for name in names if not isinstance(found.get(name), np.ndarray) or found[name].dtype.kind not in "fiu"
    ]
    if lacking:
        raise _unfit(path, f"it lacks {', '.join(lacking)}")
    return {name: found[name] for name in names}


def _whole(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    if not values.size or not np.isfinite(values).all() or (values != np.floor(values)).any():
        raise _unfit(path, f"its {name} holds other values than whole numbers")
    return values.astype(np.int64)


def _numbers(path: Path, name: str, limit: int | None = None) -> np.ndarray:
    """Vertex numbers (n,) from 0."""
    numbers = _whole(path, name, _mat(path, (name,))[name]).ravel() - 1
    if numbers.min() < 0 or (limit is not None and numbers.max() >= limit):
        raise _unfit(path, f"its {name} goes from {numbers.min() + 1} to {numbers.max() + 1}, not within 1 to {limit}")
    return numbers


def _expressions(path: Path) -> np.ndarray:
    """Components (n, vertices, 3); the file begins with their number and a mean that the published program drops."""
    content = path.read_bytes()
    count = int(np.frombuffer(content[:4], "<i4")[0]) if len(content) >= 4 else 0
    if not 0 < count < 10_000 or len(content) <= 4 or (len(content) - 4) % (12 * (count + 1)):
        raise _unfit(path, f"its {len(content)} bytes are not those of expressions; it may be cut short")
    values = np.frombuffer(content, "<f4", offset=4).reshape(count + 1, -1, 3)
    return values[1:].astype(np.float64)


def _deviations(path: Path) -> np.ndarray:
    try:
        values = np.array(path.read_text(encoding="ascii").split(), np.float64)
    except (ValueError, UnicodeDecodeError):
        raise _unfit(path, "it is no list of numbers") from None
    return values


def _unfit(path: Path, problem: str) -> TalkingPortraitError:
    page = FILES.get(path.name)
    way = f"take the published file from {page}" if page else f"make {READY} again, or give the folder of the files"
    return TalkingPortraitError(f"{path.name} is not of the Basel Face Model 2009: {problem}; {way}.")
